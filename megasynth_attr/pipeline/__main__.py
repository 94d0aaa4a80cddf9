"""``python -m megasynth_attr.pipeline preset=NAME key=value …``: resolves a configuration and runs the stages."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from megasynth_attr.core.errors import ConfigError, ExitCode, Interrupted, MegaSynthError, print_help, run_main
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.farm.experiment import open_experiment_for_writing, require_experiment
from megasynth_attr.pipeline.help import wanted_text
from megasynth_attr.pipeline.plan import cost_text
from megasynth_attr.pipeline.stages import STAGES, Stage, VerificationFailed, load
from megasynth_attr.scene.config import Experiment, resolve


def main(words: list[str]) -> None:
    """Run the chosen stages one after another; raises a MegaSynthError with the exit code if one could not finish.

    Everything that can be known to fail, in the last stage too, is looked for before the first one starts. After
    scenes, adapters or methods that failed for good, or a dataset that is not what it should be, nothing more is
    trained, but the other stages look at what there is; the first such error is raised at the end.
    """
    if (text := wanted_text(words)) is not None:
        print_help(text)
        return
    started = time.monotonic()
    with StopRequest(patient=False):
        experiment = resolve(words)
        stages = chosen_stages(experiment.run.stages, experiment.run.from_stage)
        text = cost_text(experiment, stages)  # which checks the settings of the chosen stages
        if text:
            print(text, flush=True)
        if experiment.run.plan:
            return
        functions = [load(stage) for stage in stages]
        if not any(stage.name == "generate" for stage in stages):
            require_experiment(experiment)
        open_experiment_for_writing(experiment)
        run_stages(experiment, stages, functions, started)


def run_stages(
    experiment: Experiment, stages: Sequence[Stage], functions: Sequence[Callable[[Experiment], None]], started: float
) -> None:
    """Run each stage's function; see ``main`` for what happens after a failure. ``started``: time.monotonic() then."""
    failed: MegaSynthError | None = None
    for stage, function in zip(stages, functions, strict=True):
        if failed is not None and stage.training:
            print(f"{stage.name}: not run, since an earlier stage did not end well", file=sys.stderr, flush=True)
            continue
        try:
            function(_with_time_left(experiment, started) if stage is not stages[0] else experiment)
        except MegaSynthError as error:
            if error.exit_code != ExitCode.SCENES_FAILED and not isinstance(error, VerificationFailed):
                raise
            if stage is not stages[-1]:
                print(f"{stage.name}: {error}", file=sys.stderr, flush=True)
            failed = failed or error
    if failed is not None:
        raise failed


def _with_time_left(experiment: Experiment, started: float) -> Experiment:
    """Return the experiment with what is left of max_runtime_s; Interrupted if nothing is."""
    limit_s = experiment.run.max_runtime_s
    if not limit_s:
        return experiment
    left_s = limit_s - (time.monotonic() - started)
    if left_s <= 0:
        raise Interrupted(f"max_runtime_s={limit_s:g} is over; run the same command again to resume")
    members = (replace(config, run=replace(config.run, max_runtime_s=left_s)) for config in experiment.members)
    return replace(experiment, members=tuple(members))


def chosen_stages(names: str, first: str) -> tuple[Stage, ...]:
    """Return the stages called ``names`` (a,b,c), in the pipeline's order, from ``first`` on if that is not empty.

    Raises ConfigError for an unknown stage, naming the nearest.
    """
    chosen = {_known_stage(name, "stages") for name in names.replace(" ", "").split(",") if name}
    if not chosen:
        raise ConfigError(f"stages={names}: no stage is named; known: {_all_names()}")
    start = STAGES.index(_known_stage(first, "from")) if first else 0
    stages = tuple(stage for stage in STAGES[start:] if stage in chosen)
    if not stages:
        raise ConfigError(f"stages={names} from={first}: no stage is left to run")
    return stages


def _known_stage(name: str, key: str) -> Stage:
    for stage in STAGES:
        if stage.name == name:
            return stage
    near = difflib.get_close_matches(name, [stage.name for stage in STAGES], n=1, cutoff=0.3)
    guess = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"{key}={name}: there is no such stage{guess}; known: {_all_names()}")


def _all_names() -> str:
    return ", ".join(stage.name for stage in STAGES)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
