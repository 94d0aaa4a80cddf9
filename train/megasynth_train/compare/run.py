"""A whole comparison: train, evaluate, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.report.libraries import require_report_libraries
from megasynth_train.compare.collect import collect
from megasynth_train.compare.report import Report, write_report
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.compare.trainings import Outcome, prepare, run_all


@dataclass(frozen=True)
class Comparison:
    """What a comparison left: the report, and what became of each run of this command."""

    report: Report
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Return the runs that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")


def run(settings: CompareSettings) -> Comparison:
    """Train, evaluate and report as ``settings`` say, resuming what ``run.out`` holds.

    A failing run is an outcome. Raises ConfigError, DatasetError (before anything is trained), EnvironmentProblem (no
    GPU, full disk, a missing library) and Interrupted, after which the same command continues.
    """
    require_report_libraries()
    prepared = prepare(settings)
    out = Path(settings.run.out).expanduser().resolve()
    manifest, outcomes = run_all(prepared, out)
    failures = {(o.method, o.seed): o.message for o in outcomes if o.status == "failed"}
    results = collect(out, manifest, settings.alignment, failures)
    report = write_report(out, manifest, results, settings.reference_of(results.methods))
    return Comparison(report, tuple(outcomes))
