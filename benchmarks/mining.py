"""Time and memory of mining a whole cluster, and of one layer in core coordinates against dense matrices.

    python benchmarks/mining.py out=runs/mining                       # vggt-1b, 4 attributes x 10 rank-16 adapters
    python benchmarks/mining.py out=runs/mining size=vggt-tiny dense=false

Adapters are Gaussian noise, the slowest content, because nothing converges early. They are written to ``<out>/cluster``
once (2 GB for vggt-1b) and mined by ``python -m megasynth_train.mine`` with its default settings in a separate process.
Machines differ, so the part that nothing can avoid (mining_floor.py) runs before it; printed is how many times as long
the whole takes. On a shared machine the CPU time of all processes is the number to compare.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

try:
    import numpy as np
    import psutil
    import torch
    from common import ROOT
    from safetensors.numpy import save_file

    from megasynth_attr.core.command.program import Help, parse
    from megasynth_attr.core.errors import EnvironmentProblem, run_main
    from megasynth_attr.core.fields import REQUIRED, setting
    from megasynth_attr.core.temporary import replacing_folder
    from megasynth_attr.core.threads import BLAS_THREADS
    from megasynth_train.adapters.targets import find_targets
    from megasynth_train.subspace.analysis import layer_key
    from megasynth_train.subspace.core import Update, core_coordinates
    from megasynth_train.subspace.extract import Options, extract
    from megasynth_train.subspace.settings import MiningSettings
    from megasynth_train.vggt.config import SIZES
    from megasynth_train.vggt.model import VGGT
except ModuleNotFoundError as missing:
    print(f"EnvironmentProblem: {missing}; the benchmark needs pip install -e '.[train]'", file=sys.stderr)
    sys.exit(4)

HELP = Help(
    usage="python benchmarks/mining.py out=FOLDER [key=value ...]",
    explanation="Mines a cluster of random adapters and prints wall time, CPU time and memory.",
)
POLL_S = 0.1
GIB = 2**30


@dataclass(frozen=True)
class BenchmarkSettings:
    """All keys of the benchmark."""

    out: str = setting(REQUIRED, "folder for the cluster and the mined subspaces")
    size: str = setting("vggt-1b", "model whose layers' shapes are used", options=list(SIZES))
    blocks: int = setting(0, "blocks of each attention type; 0: all of the model's", minimum=0)
    attributes: int = setting(4, "attributes", minimum=1)
    adapters: int = setting(10, "adapters per attribute", minimum=1)
    rank: int = setting(16, "rank of each", minimum=1)
    dimension: int = setting(16, "dimensions of the basis per attribute", minimum=1)
    workers: int = setting(2, "processes", minimum=1)
    whole: bool = setting(True, "mine the whole cluster")
    dense: bool = setting(True, "compare with dense matrices on one layer (a minute at vggt-1b)")
    seed: int = setting(0, "seed of the adapters", minimum=0)


def layer_shapes(settings: BenchmarkSettings) -> dict[str, tuple[int, int]]:
    """Return (outputs, inputs) of the aggregator's linears by module."""
    with torch.device("meta"):
        model = VGGT(SIZES[settings.size])
    names = [n for n in find_targets(model).aggregator if not settings.blocks or layer_key(n).depth < settings.blocks]
    return {name: tuple(model.get_submodule(name).weight.shape) for name in names}


def write_cluster(folder: Path, settings: BenchmarkSettings) -> None:
    """Write the adapters as PEFT does, unless they exist."""
    shapes = layer_shapes(settings)
    for attribute in range(settings.attributes):
        for number in range(settings.adapters):
            target = folder / f"attribute{chr(ord('a') + attribute)}_{number:02d}"
            if target.exists():
                continue
            rng = np.random.default_rng([settings.seed, attribute, number])
            tensors = {}
            for module, (outputs, inputs) in shapes.items():
                prefix = f"base_model.model.{module}"
                tensors[f"{prefix}.lora_A.weight"] = rng.standard_normal((settings.rank, inputs), dtype=np.float32)
                tensors[f"{prefix}.lora_B.weight"] = rng.standard_normal((outputs, settings.rank), dtype=np.float32)
            config = {"peft_type": "LORA", "r": settings.rank, "lora_alpha": settings.rank}
            with replacing_folder(target, "an adapter") as new:
                save_file(tensors, new / "adapter_model.safetensors")
                (new / "adapter_config.json").write_text(json.dumps(config))


def measure(command: list[str]) -> tuple[float, float, int]:
    """Return wall seconds, CPU seconds and peak bytes of a command with all its processes.

    Bytes are the sum of resident sets, so shared libraries count once per process. EnvironmentProblem if the command
    fails.
    """
    before, started, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "train"), str(ROOT)])}
    with subprocess.Popen(command, env=environment) as running:
        tree = psutil.Process(running.pid)
        while running.poll() is None:
            with suppress(psutil.NoSuchProcess):  # it ended between two polls
                peak = max(peak, sum(p.memory_info().rss for p in (tree, *tree.children(recursive=True))))
            time.sleep(POLL_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if running.returncode:
        raise EnvironmentProblem(f"{' '.join(command)} ended with exit code {running.returncode}; see above")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, cpu, peak


def dense_irls(matrices: list[np.ndarray], dimension: int, options: Options, iterations: int) -> np.ndarray:
    """Return the singular values that ``iterations`` of the paper's IRLS find with plain m × n matrices."""
    epsilon = options.epsilon * float(np.median([np.linalg.norm(matrix) for matrix in matrices]))
    weights = np.ones(len(matrices))
    for _ in range(iterations):
        mean = sum(weight * matrix for weight, matrix in zip(weights, matrices, strict=True)) / weights.sum()
        left, values, right = np.linalg.svd(mean, full_matrices=False)
        approximation = (left[:, :dimension] * values[:dimension]) @ right[:dimension]
        residuals = np.array([np.linalg.norm(approximation - matrix) for matrix in matrices])
        weights = (epsilon**2 + residuals**2) ** ((options.power - 2) / 2)
    return np.asarray(values[:dimension])


def compare_one_layer(settings: BenchmarkSettings) -> str:
    """Return a line on one qkv layer of one attribute: seconds in core coordinates and dense, and their difference."""
    width = SIZES[settings.size].width
    rng, shape = np.random.default_rng(settings.seed), (3 * width, width)
    factors = [[rng.standard_normal((size, settings.rank)) for size in shape] for _ in range(settings.adapters)]
    defaults = MiningSettings()
    options = Options(defaults.power, defaults.epsilon, defaults.tolerance, defaults.max_iterations)
    started = time.process_time()
    core = core_coordinates([Update(left, right) for left, right in factors])
    found = extract(core, settings.dimension, "irls", options)
    core_s = time.process_time() - started
    started = time.process_time()
    values = dense_irls([left @ right.T for left, right in factors], settings.dimension, options, found.iterations)
    dense_s = time.process_time() - started
    error = float(np.max(np.abs(values - found.singular_values)) / values[0])
    return (
        f"one layer {shape[0]} x {shape[1]}, {settings.adapters} adapters, irls, {found.iterations} iterations: "
        f"core coordinates {core_s:.3f} s, dense {dense_s:.1f} s of CPU time ({dense_s / core_s:.0f} times); "
        f"singular values agree to {error:.1e}"
    )


def mine_whole(settings: BenchmarkSettings, out: Path) -> str:
    """Return two lines on mining the whole cluster."""
    cluster, result = out / "cluster", out / "subspaces"
    write_cluster(cluster, settings)
    shutil.rmtree(result, ignore_errors=True)
    words = [
        f"cluster={cluster}", f"out={result}", f"dimension={settings.dimension}", f"workers={settings.workers}",
        "run.figures=false", "run.progress=false",
    ]  # fmt: skip
    floor = [sys.executable, str(Path(__file__).with_name("mining_floor.py")), str(cluster), str(settings.workers)]
    floor_s, floor_cpu_s, _ = measure(floor)
    seconds, cpu_seconds, peak = measure([sys.executable, "-m", "megasynth_train.mine", *words])
    files = sum(path.stat().st_size for path in result.iterdir() if path.is_file())
    layers = len(layer_shapes(settings))
    return (
        f"{settings.size}: {layers} layers x {settings.attributes} attributes x {settings.adapters} adapters of rank "
        f"{settings.rank}, dimension {settings.dimension}, {settings.workers} processes: {seconds:.1f} s, "
        f"{cpu_seconds:.1f} s of CPU time, at most {peak / GIB:.2f} GiB in all processes, "
        f"{files / GIB:.2f} GiB of results\n"
        f"the part nothing can avoid (read, thin QRs, SVDs of the cores): {floor_s:.1f} s, {floor_cpu_s:.1f} s of CPU "
        f"time; the whole program takes {seconds / floor_s:.2f} times as long, {cpu_seconds / floor_cpu_s:.2f} times "
        "the CPU time"
    )


def main(words: list[str]) -> None:
    """Measure what the command line asks for."""
    settings = parse(BenchmarkSettings, words, HELP)
    if any(os.environ.get(name) != "1" for name in BLAS_THREADS[:2]):
        os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))
        os.execv(sys.executable, [sys.executable, *sys.argv])  # NumPy reads them when it is loaded
    if settings.dense:
        print(compare_one_layer(settings), flush=True)
    if settings.whole:
        print(mine_whole(settings, Path(settings.out).resolve()), flush=True)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
