"""A whole comparison: every method trained and evaluated with every seed, resuming what is there, then the report.

::

    <out>/compare.json                       the manifest (manifest.py)
    <out>/bases/                             derived bases (bases.py)
    <out>/runs/<method>/seed_<seed>/         a run of finetune.py, and evaluation/, a result of evaluate
    <out>/runs/base/evaluation/              the base model is not trained
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import PartialState

from megasynth_attr.core.errors import EnvironmentProblem, ExitCode, Interrupted, MegaSynthError
from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_attr.core.selection import parse_shard, shard_of
from megasynth_attr.core.stop import StopRequest
from megasynth_train import finetune
from megasynth_train.compare.collect import PAGE, collect, current_evaluation
from megasynth_train.compare.manifest import ACROSS, EVALUATION, Run, across_manifest, open_manifest
from megasynth_train.compare.methods import RANDOM, Method
from megasynth_train.compare.prepare import Prepared, prepare
from megasynth_train.compare.report import MARKDOWN, Report, write_across, write_report
from megasynth_train.compare.settings import CompareSettings, evaluation_of, training_of
from megasynth_train.evaluate import __main__ as evaluation
from megasynth_train.training.processes import check_stop, make_accelerator, met_by_all, on_main


@dataclass(frozen=True)
class Outcome(Run):
    """The outcome of a run: "trained", "done before", or "failed" with a message."""

    status: str
    message: str = ""


@dataclass(frozen=True)
class Comparison:
    """A comparison's report, and the outcome of each run of this command."""

    report: Report
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Return the runs that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")


class MethodsFailed(MegaSynthError):
    """Some runs of a comparison failed; the others are complete and in the table."""

    exit_code = ExitCode.SCENES_FAILED


def run(settings: CompareSettings) -> Comparison:
    """Compare, print the tables and return what ``compare`` does; MethodsFailed at the end if some runs failed."""
    done = compare(settings)
    if PartialState().is_main_process:
        print((done.report.out / MARKDOWN).read_text(encoding="utf-8"))
        print(f"{len(done.outcomes)} runs, {len(done.failed)} failed: {done.report.out / PAGE}", flush=True)
    if done.failed:
        texts = "; ".join(f"{outcome.name}: {outcome.message}" for outcome in done.failed)
        raise MethodsFailed(f"{len(done.failed)} of {len(done.outcomes)} runs failed: {texts}")
    return done


def compare(settings: CompareSettings) -> Comparison:
    """Train, evaluate and report as ``settings`` say, resuming what ``run.out`` holds.

    A run that fails is reported in its outcome. Raises ConfigError and DatasetError before anything is trained,
    EnvironmentProblem (no GPU, full disk, a missing library) and Interrupted; the same command then continues.
    """
    require_report_libraries()
    prepared = prepare(settings)
    out = Path(settings.run.out).resolve()
    with StopRequest(settings.run.max_runtime_s) as stop:
        accelerator = make_accelerator(settings.run.device)
        manifest: dict[str, Any] = on_main(accelerator, lambda: open_manifest(out, prepared))
        outcomes = []
        for method, seed in shard_of(_runs(prepared), *parse_shard(settings.shard)):
            check_stop(stop)
            job = _Job(prepared, method, Run(method.name, seed), out, manifest, accelerator, stop.remaining_s())
            outcomes.append(_outcome(job))
    failures = {Run(one.method, one.seed): one.message for one in outcomes if one.status == "failed"}

    def report() -> Report:
        across = None
        if settings.across.data:
            elsewhere = across_manifest(manifest)
            results = collect(out, elsewhere, settings.alignment, failures, ACROSS)
            across = write_across(out, elsewhere, results, settings.reference_of(results.methods))
        results = collect(out, manifest, settings.alignment, failures)
        return write_report(out, manifest, results, settings.reference_of(results.methods), across=across)

    return Comparison(on_main(accelerator, report), tuple(outcomes))


@dataclass(frozen=True)
class _Job:
    """One run and what it needs; ``left_s``: what is left of max_runtime_s, 0 if that sets no limit."""

    prepared: Prepared
    method: Method
    run: Run
    out: Path
    manifest: Mapping[str, Any]
    accelerator: Accelerator
    left_s: float


def _runs(prepared: Prepared) -> list[tuple[Method, int | None]]:
    """Return all runs, one seed after the other: the first seed's table is complete first."""
    untrained: list[tuple[Method, int | None]] = [(m, None) for m in prepared.methods if m.adapter is None]
    trained = [m for m in prepared.methods if m.adapter is not None]
    return untrained + [(method, seed) for seed in prepared.settings.seeds for method in trained]


def _outcome(job: _Job) -> Outcome:
    """Do the run and return its outcome; errors that would stop all others too are raised."""
    run = job.run.method, job.run.seed
    try:
        return Outcome(*run, "done before" if _train_and_evaluate(job) else "trained")
    except (EnvironmentProblem, Interrupted):
        raise
    except Exception as error:  # an unexpected error of one method must not stop the others; it is listed at the end
        if not met_by_all(job.run.name):
            raise
        if not isinstance(error, MegaSynthError):
            traceback.print_exc()
        return Outcome(*run, "failed", f"{type(error).__name__}: {error}")


def _train_and_evaluate(job: _Job) -> bool:
    """Train and evaluate; return whether both were done before."""
    settings, folder, seed = job.prepared.settings, job.run.folder(job.out), job.run.seed
    adapter, trained_before = "", True
    if seed is not None:
        basis = on_main(job.accelerator, lambda: _basis_of(job, seed))
        training = training_of(settings, job.method, seed, basis, str(folder))
        training = replace(training, run=replace(training.run, max_runtime_s=job.left_s))
        result = finetune.run(training, record={"method": job.method.name})
        adapter, trained_before = str(result.result), result.already_done

    def evaluate() -> bool:
        """Evaluate, unless current evaluations exist; return whether they do."""
        wanted = [(job.manifest, EVALUATION)]
        wanted += [(across_manifest(job.manifest), ACROSS)] if settings.across.data else []
        current = True
        for manifest, name in wanted:
            if current_evaluation(job.out, job.run, manifest, name, page=settings.test.page) is None:
                measure = evaluation_of(settings, across=name == ACROSS)
                evaluation.run(replace(measure, adapter=adapter, out=str(folder / name)))
                current = False
        return current

    return on_main(job.accelerator, evaluate) and trained_before


def _basis_of(job: _Job, seed: int) -> str:
    """Return the basis file of a run, written first if needed; "" if the run needs none."""
    bases, method = job.prepared.bases, job.method
    if not method.basis or bases is None or method.adapter is None:
        return ""
    if method.basis == RANDOM:
        return str(bases.random_file(method.adapter.attributes, seed))
    return str(bases.mined_file(method.adapter.attributes))
