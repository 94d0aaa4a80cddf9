"""Training and evaluating every method with every seed, resuming what is there.

::

    <out>/compare.json                       the manifest (manifest.py)
    <out>/bases/                             bases that had to be made (bases.py)
    <out>/runs/<method>/seed_<seed>/         a run of finetune.py, and evaluation/, a result of evaluate
    <out>/runs/base/evaluation/              the base model is not trained
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, Interrupted, MegaSynthError
from megasynth_attr.core.selection import parse_shard, shard_of
from megasynth_attr.core.stop import StopRequest
from megasynth_train import finetune
from megasynth_train.adapters.subspace.opening import check_base
from megasynth_train.compare.bases import Bases, open_bases
from megasynth_train.compare.collect import current_evaluation
from megasynth_train.compare.manifest import EVALUATION, Contents, open_manifest, run_folder
from megasynth_train.compare.methods import RANDOM, Method
from megasynth_train.compare.settings import CompareSettings, training_of
from megasynth_train.compare.sizes import Size, measured
from megasynth_train.data.sources import open_sources
from megasynth_train.evaluate import __main__ as evaluation
from megasynth_train.evaluate.inputs import select_scenes
from megasynth_train.evaluate.options import EvaluateSettings, MeasureSettings
from megasynth_train.training.base_model import base_model
from megasynth_train.training.loop import say
from megasynth_train.training.processes import make_accelerator, on_main
from megasynth_train.vggt.checkpoint import weights_hash


@dataclass(frozen=True)
class Outcome:
    """What became of one run: "trained", "done before", or "failed" with a message. Seed None: the base model."""

    method: str
    seed: int | None
    status: str
    message: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Return the run in words."""
        return self.method if self.seed is None else f"{self.method}, seed {self.seed}"


@dataclass(frozen=True)
class Prepared:
    """A comparison whose methods are known: checked, with the basis in memory if a method needs one."""

    settings: CompareSettings
    methods: tuple[Method, ...]
    sizes: dict[str, Size]  # by method
    bases: Bases | None


def prepare(settings: CompareSettings) -> Prepared:
    """Return the comparison with every method checked against the model's size; reads no data and no weights.

    ConfigError naming the method that cannot be built, DatasetError for a basis that cannot be read.
    """
    settings.check()
    bases = None
    if settings.uses_basis():
        if not settings.basis:
            settings.resolve()  # names the method, or explains why its name is unknown
            raise ConfigError("basis= is missing: methods= has some that train in a basis")
        bases = open_bases(settings.basis, settings.run.out)
    dimension = max((layer.dimension for layer in bases.whole.layers.values()), default=0) if bases else 0
    methods = settings.resolve(bases.whole.attributes if bases else (), dimension)
    return Prepared(settings, *measured(methods, settings, bases), bases)


def run_all(prepared: Prepared, out: Path) -> tuple[dict[str, Any], list[Outcome]]:
    """Train and evaluate this shard's runs; return the manifest and what became of each run.

    A failing run is an outcome. What would fail all of them is raised: ConfigError if ``out`` holds another
    comparison, EnvironmentProblem (no GPU, full disk) and Interrupted, after which the same command continues.
    """
    settings = prepared.settings
    with StopRequest(settings.run.max_runtime_s) as stop:
        deadline = time.monotonic() + settings.run.max_runtime_s
        accelerator = make_accelerator(settings.run.device)
        manifest: dict[str, Any] = on_main(
            accelerator, lambda: open_manifest(out, settings, prepared.methods, contents_of(prepared))
        )
        outcomes = []
        for method, seed in shard_of(_runs(prepared), *parse_shard(settings.shard)):
            stop.check()
            left = max(deadline - time.monotonic(), 1e-3) if settings.run.max_runtime_s else 0.0
            job = _Job(prepared, out, manifest, accelerator, left)
            outcomes.append(_run_one(job, method, seed))
    return manifest, outcomes


def contents_of(prepared: Prepared) -> Contents:
    """Return what the comparison is made of; ConfigError or DatasetError if data, base model and basis do not fit."""
    settings = prepared.settings
    training, test = open_sources(settings.training().data), select_scenes(_evaluation(settings))
    for note in (*training.notes, *test.notes):
        say(note)
    base_sha256 = weights_hash(base_model(settings.model, []))
    if prepared.bases is not None:
        check_base(prepared.bases.whole, base_sha256, str(prepared.bases.file))
    seen = {scene.folder for scene in training.train}
    return Contents(
        training_sha256=training.fingerprint,
        test_sha256=test.fingerprint,
        base_sha256=base_sha256,
        basis_sha256={name: size.basis_sha256 for name, size in prepared.sizes.items()},
        notes={name: size.note for name, size in prepared.sizes.items() if size.note},
        training_scenes=len(training.train),
        test_scenes=len(test.scenes),
        seen_scenes=tuple(scene.name for scene in test.scenes if scene.folder in seen),
    )


@dataclass(frozen=True)
class _Job:
    prepared: Prepared
    out: Path
    manifest: Mapping[str, Any]
    accelerator: Accelerator
    left_s: float


def _runs(prepared: Prepared) -> list[tuple[Method, int | None]]:
    """Return all runs, one seed after the other: the first seed's table is complete first."""
    untrained: list[tuple[Method, int | None]] = [(m, None) for m in prepared.methods if m.adapter is None]
    trained = [m for m in prepared.methods if m.adapter is not None]
    return untrained + [(method, seed) for seed in prepared.settings.seeds for method in trained]


def _run_one(job: _Job, method: Method, seed: int | None) -> Outcome:
    started = time.monotonic()
    try:
        done_before = _train_and_evaluate(job, method, seed)
    except (EnvironmentProblem, Interrupted):
        raise
    except MegaSynthError as error:
        message = f"{type(error).__name__}: {error}"
    except Exception as error:  # a defect of one method must not cost the nights of the others; it is named at the end
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
    else:
        return Outcome(method.name, seed, "done before" if done_before else "trained", "", time.monotonic() - started)
    return Outcome(method.name, seed, "failed", message, time.monotonic() - started)


def _train_and_evaluate(job: _Job, method: Method, seed: int | None) -> bool:
    """Return whether both were done before."""
    settings, folder = job.prepared.settings, run_folder(job.out, method.name, seed)
    adapter, trained_before = "", True
    if seed is not None:
        basis = on_main(job.accelerator, lambda: _basis_of(job, method, seed))
        training = training_of(settings, method, seed, basis, str(folder))
        training = replace(training, run=replace(training.run, max_runtime_s=job.left_s))
        result = finetune.run(training, record={"method": method.name})
        adapter, trained_before = str(result.result), result.already_done

    def evaluate() -> bool:
        """Return whether the evaluation there was still good."""
        page = settings.test.page
        if current_evaluation(folder, job.manifest, trained=seed is not None, page=page) is not None:
            return True
        evaluation.run(replace(_evaluation(settings), adapter=adapter, out=str(folder / EVALUATION)))
        return False

    return on_main(job.accelerator, evaluate) and trained_before


def _basis_of(job: _Job, method: Method, seed: int) -> str:
    """Return the basis file of a method's run ("": it needs none); one that has to be made is written."""
    bases = job.prepared.bases
    if not method.basis or bases is None or method.adapter is None:
        return ""
    if method.basis == RANDOM:
        return str(bases.random_file(method.adapter.attributes, seed))
    return str(bases.mined_file(method.adapter.attributes))


def _evaluation(settings: CompareSettings) -> EvaluateSettings:
    """Return how every run is evaluated."""
    measured = {f.name: getattr(settings.test, f.name) for f in fields(MeasureSettings)}
    common = settings.run
    return EvaluateSettings(
        **measured, model=settings.model, device=common.device, threads=common.threads, progress=common.progress
    )
