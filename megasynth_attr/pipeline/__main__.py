"""``python -m megasynth_attr.pipeline preset=NAME key=value …``: resolves a configuration and runs the stages."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from megasynth_attr.core.errors import ExitCode, Interrupted, MegaSynthError, print_help, run_main
from megasynth_attr.core.machine import refuse_several_processes
from megasynth_attr.core.stages import StageRun
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.pipeline.check import check_machine, check_settings
from megasynth_attr.pipeline.help import wanted_text
from megasynth_attr.pipeline.plan import plan_text
from megasynth_attr.pipeline.stages import Step, VerificationFailed, find_stages
from megasynth_attr.scene.config import resolve


def main(words: list[str]) -> None:
    """Run the chosen stages one after another; raises a MegaSynthError with the exit code if one could not finish.

    Everything that can be known to fail, even in the last stage, is checked before the first one starts. After scenes,
    adapters or methods that failed for good, or a dataset that is wrong, nothing more is trained, but the other stages
    still look at what there is; the first such error is raised at the end.
    """
    if (text := wanted_text(words)) is not None:
        print_help(text)
        return
    refuse_several_processes(
        "the pipeline",
        "its stages run in one process each: start it once (shard=i/n divides stages), or start the training programs "
        "finetune, cluster and compare with torchrun",
    )
    started = time.monotonic()
    with StopRequest(patient=False):
        experiment, stages = resolve(words), find_stages()
        steps = stages.steps(experiment)
        check_settings(experiment, stages, steps)
        if text := plan_text(steps, wanted=experiment.run.plan):
            print(f"cost      preset {experiment.preset}, {text}", flush=True)
        if experiment.run.plan:
            return
        check_machine(experiment, steps)
        run_steps(steps, started)


def run_steps(steps: Sequence[Step], started: float) -> None:
    """Run one stage after another; see ``main`` for failures. ``started``: time.monotonic() when the run began."""
    failed: MegaSynthError | None = None
    for stage, run in steps:
        if failed is not None and not stage.despite_failure:
            print(f"{stage.name}: not run, because an earlier stage failed", file=sys.stderr, flush=True)
            continue
        try:
            stage.run(replace(run, max_runtime_s=_time_left_s(run, started)))
        except MegaSynthError as error:
            if error.exit_code != ExitCode.SCENES_FAILED and not isinstance(error, VerificationFailed):
                raise
            if stage is not steps[-1].stage:
                print(f"{stage.name}: {error}", file=sys.stderr, flush=True)
            failed = failed or error
    if failed is not None:
        raise failed


def _time_left_s(run: StageRun, started: float) -> float:
    """Return what is left of max_runtime_s, 0 if there is no limit; Interrupted if nothing is left."""
    limit_s = run.max_runtime_s
    left_s = limit_s - (time.monotonic() - started)
    if limit_s and left_s <= 0:
        raise Interrupted(f"max_runtime_s={limit_s:g} is over; run the same command again to resume")
    return left_s if limit_s else 0.0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
