"""A whole comparison: every method trained and evaluated with every seed, resuming what is there, then the report.

::

    <out>/compare.json                       the manifest (manifest.py)
    <out>/bases/                             derived bases (bases.py)
    <out>/runs/<method>/seed_<seed>/         a run of finetune.py, and evaluation/, a result of evaluate
    <out>/runs/base/evaluation/              the base model is not trained
    <out>/runs/held-out/<adapter>/           nor are controls: evaluation/, and control.json (collect.py)
    <out>/tuning/<method>/lr_<rate>/         trials of learning rates, if tune.lr= asks for them (tuning.py)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from accelerate.state import PartialState

from megasynth_attr.core.errors import DatasetError, ExitCode, MegaSynthError
from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_attr.core.selection import parse_shard, shard_of
from megasynth_attr.core.stop import StopRequest
from megasynth_train import finetune
from megasynth_train.compare.collect import PAGE, collect, current_evaluation, keep_evaluated
from megasynth_train.compare.manifest import (
    ACROSS,
    CONTROL,
    EVALUATION,
    Run,
    across_manifest,
    open_manifest,
    runs_of,
)
from megasynth_train.compare.methods import RANDOM, Method
from megasynth_train.compare.prepare import Prepared, prepare
from megasynth_train.compare.report import MARKDOWN, Report, write_report
from megasynth_train.compare.settings import CompareSettings, evaluation_of, training_of, trial_folder, trial_settings
from megasynth_train.compare.tuning import SEED, Trial, best_rate, read_trial, write_trial
from megasynth_train.evaluate import __main__ as evaluation
from megasynth_train.training.at_once import plan, run_all
from megasynth_train.training.loop import OnStep
from megasynth_train.training.processes import make_accelerator, on_main, survived
from megasynth_train.training.step_reports import Diverged


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
        shard = parse_shard(settings.shard)
        tuned = shard_of(list(prepared.trained) if settings.tune.lr else [], *shard)
        trials = {
            f"{method.name}, lr {lr:g}": _Item(method, Run(method.name, None), lr)
            for method in tuned
            for lr in settings.tune.lr
        }
        runs = {item.run.name: item for item in shard_of(_runs(prepared, manifest), *shard)}
        outcomes: dict[str, Outcome] = {}

        def keep_trial(name: str, outcome: Outcome) -> None:
            method, lr = trials[name].method, trials[name].lr
            failed = f"at a learning rate of {lr:g}: {outcome.message}"
            for run_name, (own, run, _) in runs.items():
                if outcome.message and own is method:
                    outcomes[run_name] = Outcome(run.method, run.seed, "failed", failed)

        def do(items: Mapping[str, _Item], folders: Sequence[Path], keep: Callable[[str, Outcome], None]) -> None:
            planned = plan(settings, accelerator, sum(not folder.exists() for folder in folders))
            ours = prepared if planned.each == settings else replace(prepared, settings=planned.each)
            run_all(partial(_do, ours, out, manifest), items, planned, stop, keep)

        do(trials, [trial_folder(out, one.method.name, one.lr) for one in trials.values()], keep_trial)
        left = {name: one for name, one in runs.items() if name not in outcomes}
        do(left, [one.run.folder(out) / EVALUATION for one in runs.values()], outcomes.__setitem__)
    done = tuple(outcomes[name] for name in runs)
    failures = {Run(one.method, one.seed, member=one.member): one.message for one in done if one.status == "failed"}

    def report(record: Mapping[str, Any], evaluation: str, **more: Any) -> Report:
        results = collect(out, record, settings.alignment, failures, evaluation)
        return write_report(out, record, results, settings.reference_of(results.methods), **more)

    def reported() -> Report:
        across = report(across_manifest(manifest), ACROSS, within=ACROSS) if settings.across.data else None
        return report(manifest, EVALUATION, across=across)

    return Comparison(on_main(accelerator, reported), done)


class _Item(NamedTuple):
    """A run of a method, or a learning rate to be tried for it."""

    method: Method
    run: Run
    lr: float = 0.0  # 0: the method's own


@dataclass(frozen=True)
class _Job:
    """One run and what it needs; ``left_s`` and ``on_step``: as in training/at_once.py."""

    prepared: Prepared
    method: Method
    run: Run
    out: Path
    manifest: Mapping[str, Any]
    left_s: float
    on_step: OnStep

    @cached_property
    def accelerator(self) -> Accelerator:
        """Return the accelerator of the process that does it."""
        return make_accelerator(self.prepared.settings.run.device)


def _runs(prepared: Prepared, manifest: Mapping[str, Any]) -> list[_Item]:
    """Return all runs, one seed after the other: the first seed's table is complete first.

    Controls that leave out the same adapter follow each other: they share the basis that is mined without it.
    """
    untrained = [_Item(m, run) for m in prepared.methods if m.adapter is None for run in runs_of(m.name, manifest)]
    untrained.sort(key=lambda one: one.run.member)
    trained = [_Item(m, Run(m.name, seed)) for seed in prepared.settings.seeds for m in prepared.trained]
    return untrained + trained


def _do(
    prepared: Prepared, out: Path, manifest: Mapping[str, Any], item: _Item, left_s: float, on_step: OnStep
) -> Outcome:
    """Do what ``item`` says and return its outcome; errors that would stop all others too are raised."""
    method, run, lr = item
    job = _Job(prepared, method, run, out, manifest, left_s, on_step)
    try:
        before = _try_rate(job, lr) if lr else _train_and_evaluate(job)
    except Exception as error:
        message = survived(error, f"{method.name}, lr {lr:g}" if lr else run.name)
        return Outcome(run.method, run.seed, "failed", message, member=run.member)
    return Outcome(run.method, run.seed, "done before" if before else "trained", "", member=run.member)


def _train_and_evaluate(job: _Job) -> bool:
    """Train and evaluate; return whether both were done before."""
    settings, folder, seed = job.prepared.settings, job.run.folder(job.out), job.run.seed
    adapter, trained_before = "", True
    if seed is not None:
        basis = on_main(job.accelerator, lambda: _basis_of(job, seed))
        training = training_of(settings, on_main(job.accelerator, lambda: _tuned(job)), seed, basis, str(folder))
        training = replace(training, run=replace(training.run, max_runtime_s=job.left_s))
        result = finetune.run(training, record={"method": job.method.name}, on_step=job.on_step)
        adapter, trained_before = str(result.result), result.already_done

    def evaluate() -> bool:
        """Evaluate, unless current evaluations exist; return whether they do."""
        wanted = [(job.manifest, EVALUATION)]
        wanted += [(across_manifest(job.manifest), ACROSS)] if settings.across.data else []
        missing = [
            name
            for manifest, name in wanted
            if current_evaluation(job.out, job.run, manifest, name, page=settings.test.page) is None
        ]
        with _adapter_of(job, adapter) if missing else nullcontext("") as used:
            for name in missing:
                measure = evaluation_of(settings, across=name == ACROSS)
                record = evaluation.run(replace(measure, adapter=used, out=str(folder / name)))
                if CONTROL in job.manifest["methods"][job.run.method]:
                    measured = record["model"]["adapter_record_sha256"]
                    keep_evaluated(folder, job.manifest["methods"][job.run.method], name, measured)
        return not missing

    return on_main(job.accelerator, evaluate) and trained_before


def _adapter_of(job: _Job, trained: str) -> AbstractContextManager[str]:
    """Return the folder of the adapter to measure, for as long as it is needed: a control's is not kept."""
    if CONTROL not in job.manifest["methods"][job.run.method]:
        return nullcontext(trained)
    progress = job.prepared.settings.run.progress
    return job.prepared.origin.adapter(job.run.method, job.run.member, job.out, progress)


def _tuned(job: _Job) -> Method:
    """Return the method with the learning rate that was best for it, if any were tried."""
    if not job.prepared.settings.tune.lr:
        return job.method
    lr = best_rate(job.out, job.method.name, job.manifest)
    return replace(job.method, optim=replace(job.method.optim, lr=lr))


def _try_rate(job: _Job, lr: float) -> bool:
    """Train with a learning rate and measure it on the validation scenes; return whether that was done before."""
    name, folder = job.method.name, trial_folder(job.out, job.method.name, lr)
    if on_main(job.accelerator, lambda: read_trial(job.out, name, lr)) is not None:
        return True
    basis = on_main(job.accelerator, lambda: _basis_of(job, SEED))
    training, measure = trial_settings(job.prepared.settings, job.method, lr, SEED, basis, str(folder))
    training = replace(training, run=replace(training.run, max_runtime_s=job.left_s))
    try:
        trained = finetune.run(training, record={"method": name}, on_step=job.on_step)
    except Diverged as error:
        reason = str(error)
        on_main(job.accelerator, lambda: write_trial(job.out, Trial(name, lr, None, reason)))
        return False

    def measured() -> Trial:
        try:
            record = evaluation.run(replace(measure, adapter=str(trained.result), out=str(folder / EVALUATION)))
        except DatasetError as error:  # no scene could be measured
            return Trial(name, lr, None, str(error))
        if record["excluded"]:
            return Trial(name, lr, None, "; ".join(f"{bad['scene']}: {bad['reason']}" for bad in record["excluded"]))
        return Trial(name, lr, record["average"]["points"]["accuracy_mean"]["mean"])

    on_main(job.accelerator, lambda: write_trial(job.out, measured()))
    return False


def _basis_of(job: _Job, seed: int) -> str:
    """Return the basis file of a run, written first if needed; "" if the run needs none."""
    bases, method = job.prepared.bases, job.method
    if not method.basis or bases is None or method.adapter is None:
        return ""
    if method.basis == RANDOM:
        return str(bases.random_file(method.adapter.attributes, seed))
    return str(bases.mined_file(method.adapter.attributes))
