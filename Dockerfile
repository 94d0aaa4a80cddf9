# Everything of this project, set up, on the CPU (target cpu) or on NVIDIA GPUs (target cuda).
#
#   docker build --target cpu -t megasynth-attr .
#   docker run --rm megasynth-attr                                   # make test
#   docker run --rm -v "$PWD/runs:/megasynth-attr/runs" megasynth-attr make demo
#   docker build --target cuda -t megasynth-attr:cuda .
#   docker run --rm --gpus all megasynth-attr:cuda                   # the same; tests that can use a GPU do
FROM debian:12-slim AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /megasynth-attr
COPY . .
RUN make setup-test && rm -rf /root/.cache/pip
CMD ["make", "test"]

FROM base AS cpu

# PyTorch's wheels bring CUDA; the driver comes from the host, through NVIDIA's container toolkit
FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility
RUN .venv/bin/python -m pip install -q --no-compile --disable-pip-version-check -e ".[fast]" && rm -rf /root/.cache/pip
