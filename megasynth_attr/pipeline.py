"""``python -m megasynth_attr.pipeline preset=NAME key=value …``: resolves a configuration and runs the stages."""

from __future__ import annotations

import difflib
import sys

from megasynth_attr.config import resolve
from megasynth_attr.errors import ConfigError, MegaSynthError, ScenesFailed, run_main
from megasynth_attr.farm.experiment import open_experiment_for_writing
from megasynth_attr.farm.stop import StopRequest
from megasynth_attr.help import help_text, wants_help
from megasynth_attr.stages import STAGES, Stage, VerificationFailed, load


def main(words: list[str]) -> None:
    """Run the chosen stages one after another; raises a MegaSynthError with the exit code if one could not finish.

    Scenes that failed for good, or a dataset that is not what it should be, do not keep the later stages from looking
    at what there is; the first such error is raised at the end.
    """
    if wants_help(words):
        print(help_text(words))
        return
    with StopRequest(patient=False):
        experiment = resolve(words)
        stages = chosen_stages(experiment.run.stages, experiment.run.from_stage)
        open_experiment_for_writing(experiment)
        failed: MegaSynthError | None = None
        for stage in stages:
            try:
                load(stage)(experiment)
            except (ScenesFailed, VerificationFailed) as error:
                if stage is not stages[-1]:
                    print(f"{stage.name}: {error}", file=sys.stderr, flush=True)
                failed = failed or error
        if failed is not None:
            raise failed


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
