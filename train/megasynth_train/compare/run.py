"""A whole comparison: train, evaluate, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate.state import PartialState

from megasynth_attr.core.errors import ExitCode, MegaSynthError
from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_train.compare.collect import PAGE, collect
from megasynth_train.compare.report import MARKDOWN, Report, write_report
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.compare.trainings import Outcome, prepare, run_all
from megasynth_train.training.processes import make_accelerator, on_main


@dataclass(frozen=True)
class Comparison:
    """What a comparison left: the report, and what became of each run of this command."""

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

    A failing run is an outcome. Raises ConfigError, DatasetError (before anything is trained), EnvironmentProblem (no
    GPU, full disk, a missing library) and Interrupted, after which the same command continues.
    """
    require_report_libraries()
    prepared = prepare(settings)
    out = Path(settings.run.out).expanduser().resolve()
    manifest, outcomes = run_all(prepared, out)
    failures = {(o.method, o.seed): o.message for o in outcomes if o.status == "failed"}

    def report() -> Report:
        results = collect(out, manifest, settings.alignment, failures)
        return write_report(out, manifest, results, settings.reference_of(results.methods))

    return Comparison(on_main(make_accelerator(settings.run.device), report), tuple(outcomes))
