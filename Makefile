# These do everything, set-up included: `make demo`, `make demo-human`, `make sample`, `make docs` and `make test`.
PYTHON = .venv/bin/python
BODIES = runs/demo_human_bodies
# some images of containers set it; nothing would be kept of what Python compiles, and a training program start in 20 s, not in 8
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-human sample docs test lint setup-demo setup-human setup-sample setup-train setup-docs setup-test clean
demo: setup-demo  ## datasets, adapters, their subspaces, a comparison, and a page about it all, in runs/demo
	$(PYTHON) -m megasynth_attr.pipeline preset=demo

demo-human: setup-human $(BODIES)/attributes $(BODIES)/thuman $(BODIES)/twok2k/test  ## the same with scanned people, in runs/demo_human
	$(PYTHON) -m megasynth_attr.pipeline preset=demo_human

$(BODIES)/attributes: | setup-human
	$(PYTHON) -m megasynth_train.bodies out=$@ count=6
$(BODIES)/thuman: | setup-human
	$(PYTHON) -m megasynth_train.bodies out=$@ count=6 first=100
$(BODIES)/twok2k/test: | setup-human
	$(PYTHON) -m megasynth_train.bodies out=$@ count=3 first=200 layout=twok2k

sample: setup-sample  ## four datasets with card, adapters, bases and pages, to be published: runs/sample_published
	$(PYTHON) -m megasynth_attr.pipeline preset=sample
	$(PYTHON) tools/sample.py runs/sample runs/sample_published

docs: setup-docs  ## the documentation as a site that opens from files: site/index.html
	$(PYTHON) tools/docs_site.py build/docs_source
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

LINT = .venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

# two tests at a time, each with one thread: two processes with two threads each would wait for one another; style and
# types beside them, because tests often wait
test: setup-test  ## everything: style, types, tests on both Blenders
	@{ $(LINT); } & lint=$$!; \
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n 2 --dist loadfile --durations=25; tests=$$?; \
	wait $$lint || { echo "style or types are wrong: see above" >&2; exit 1; }; \
	exit $$tests

lint: setup-test
	$(LINT)

setup-demo:
	@tools/setup.sh demo

setup-human:
	@tools/setup.sh human

setup-sample:
	@tools/setup.sh sample

setup-train: setup-demo  ## the same: the demo trains, too

setup-docs:
	@tools/setup.sh docs

setup-test:
	@tools/setup.sh test

clean:  ## remove what demo and tests made, not the virtual environment
	rm -rf runs dist build site .pytest_cache .hypothesis .mypy_cache .ruff_cache
