"""The pipeline's stages in the order they run: those built in, and those that packages bring (core/stages.py)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem
from megasynth_attr.core.pages.chapters import ChapterPlace
from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_attr.core.selection import parse_indices
from megasynth_attr.core.stages import CostLine, Stage, StageGroup, StageRun, installed_groups, missing_stage
from megasynth_attr.core.threads import available_cores
from megasynth_attr.dataset.paths import DATASET_FILE, dataset_dir, dataset_name
from megasynth_attr.scene.config import Config, Experiment

MANY_FRAMES = 400  # below that, starting processes takes longer than checking


class VerificationFailed(DatasetError):
    """A dataset is not what it should be; the report shows it all the same."""


@dataclass(frozen=True, kw_only=True)
class PipelineRun(StageRun):
    """What built-in stages are also given: the whole experiment, and where chapters may have been written."""

    experiment: Experiment
    chapters: tuple[ChapterPlace, ...] = ()


class Step(NamedTuple):
    """A chosen stage and what it is given."""

    stage: Stage[PipelineRun]
    run: PipelineRun


@dataclass(frozen=True)
class Stages:
    """All stages there are, in the order they run, and the groups of those that are not built in, by section.

    ``broken``: the sections of groups that do not load, with the reason.
    """

    all: tuple[Stage[PipelineRun], ...]
    groups: Mapping[str, StageGroup]
    broken: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        return [stage.name for stage in self.all]

    def choose(self, names: str, first: str) -> tuple[Stage[PipelineRun], ...]:
        """Return the stages called ``names`` (a,b,c), in the order they run, from ``first`` on if that is not empty.

        Raises ConfigError for an unknown stage, naming the nearest; EnvironmentProblem for one that is not installed.
        """
        chosen = {self._index(name, "stages") for name in names.replace(" ", "").split(",") if name}
        if not chosen:
            raise ConfigError(f"stages={names}: no stage is named; known: {', '.join(self.names)}")
        start = self._index(first, "from") if first else 0
        if not (left := sorted(index for index in chosen if index >= start)):
            raise ConfigError(f"stages={names} from={first}: no stage is left to run")
        return tuple(self.all[index] for index in left)

    def steps(self, experiment: Experiment) -> list[Step]:
        """Return the experiment's chosen stages with what each is given; raises what ``choose`` raises."""
        places = tuple(
            ChapterPlace(f"{stage.section}/{stage.chapter}", stage.question) for stage in self.all if stage.chapter
        )
        chosen = self.choose(experiment.run.stages, experiment.run.from_stage)
        return [Step(stage, stage_run(experiment, stage.section, places)) for stage in chosen]

    def _index(self, name: str, key: str) -> int:
        if name in self.names:
            return self.names.index(name)
        if problem := missing_stage(name, self.broken):
            raise problem
        reasons = "".join(f"; {reason}" for reason in self.broken.values())
        raise ConfigError(
            f"{key}={name}: there is no such stage{nearest(name, self.names)}; known: {', '.join(self.names)}{reasons}"
        )


def find_stages() -> Stages:
    """Return all stages; ConfigError if two have the same name or wait for each other."""
    groups, broken = installed_groups()
    others = [stage for group in groups.values() for stage in group.stages]
    return Stages((GENERATE, VERIFY, *_ordered(others), REPORT), groups, broken)


def _ordered(stages: Sequence[Stage[Any]]) -> list[Stage[Any]]:
    """Return the stages in the order given, except that each follows those it names in ``after``."""
    left = {stage.name: stage for stage in stages}
    names = [stage.name for stage in (GENERATE, VERIFY, *stages, REPORT)]
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise ConfigError(f"two installed packages bring a stage {twice[0]}; uninstall one of them")
    ordered: list[Stage[Any]] = []
    while left:
        free = next((stage for stage in left.values() if not left.keys() & set(stage.after)), None)
        if free is None:
            raise ConfigError(f"the stages {', '.join(left)} wait for each other; uninstall the package of one of them")
        ordered.append(left.pop(free.name))
    return ordered


def stage_run(experiment: Experiment, section: str, chapters: tuple[ChapterPlace, ...] = ()) -> PipelineRun:
    """Return what the stages of a section are given to run an experiment."""
    return PipelineRun(
        out=experiment.out,
        members={config.attribute: _dataset_names(config) for config in experiment.members},
        downstream=_dataset_names(experiment.downstream) if experiment.downstream else (),
        across={config.attribute: _dataset_names(config) for config in experiment.across},
        photographs=experiment.photographs,
        section=section,
        values=experiment.sections.get(section, {}),
        shard=experiment.run.shard,
        max_runtime_s=experiment.run.max_runtime_s,
        experiment=experiment,
        chapters=chapters,
    )


def _dataset_names(config: Config) -> tuple[str, ...]:
    return tuple(dataset_name(config.attribute, index) for index in _selected(config))


def _selected(config: Config) -> list[int]:
    return parse_indices(config.run.datasets, config.content.dataset_count, "datasets")


def _generate(run: PipelineRun) -> None:
    from megasynth_attr.farm.generate import generate

    generate(run.experiment)


def _check_generate(run: PipelineRun) -> None:
    from megasynth_attr.farm.library import check_scans
    from megasynth_attr.farm.slurm import check_executor

    check_executor(run.experiment.run)
    check_scans(run.experiment)


def _check_machine(run: PipelineRun) -> None:
    from megasynth_attr.farm.generate import check_machine

    check_machine(run.experiment)


def _rendering_cost(run: PipelineRun) -> list[CostLine]:
    from megasynth_attr.farm.tasks import describe, make_plan

    return describe(make_plan(run.experiment))


def _verify(run: PipelineRun) -> None:
    """Record the isolation of every selected dataset and check it; VerificationFailed if one is wrong."""
    from megasynth_attr.dataset.reader import open_dataset  # here and below: what --help can do without
    from megasynth_attr.dataset.verify import verify_and_print
    from megasynth_attr.farm.isolation import record_isolation

    failed = []
    for config in run.experiment.configs:
        folders = {index: dataset_dir(run.out, config.attribute, index) for index in _selected(config)}
        for folder in folders.values():
            held = open_dataset(folder).scene_count if (folder / DATASET_FILE).is_file() else 0
            if held < (wanted := config.content.scene_count):
                what = f"was made for {held} of {wanted} scenes" if held else "does not exist yet"
                raise DatasetError(f"{folder} {what}; run the stage generate first")
        try:
            record_isolation(run.experiment, config, folders)
        except EnvironmentProblem as error:  # a dataset that cannot be written to is checked all the same
            print(f"verify: how isolated {config.attribute} is was not recorded: {error}", file=sys.stderr, flush=True)
        scenes = parse_indices(config.run.scenes, config.content.scene_count, "scenes")
        partial = config.run.scenes.strip() != "all" or config.run.shard != "1/1"
        frames = len(scenes) * config.content.frames
        workers = min(len(scenes), config.run.workers or available_cores()) if frames >= MANY_FRAMES else 1
        for folder in folders.values():
            report = verify_and_print(folder, scenes=scenes if partial else None, workers=workers)
            none_here_yet = config.run.shard != "1/1" and report.scenes == 0  # other shards make them
            if not report.passed and not none_here_yet:
                failed.append(folder.name)
    if failed:
        raise VerificationFailed(
            f"{', '.join(failed)}: verification failed; the tables above and verify.json say what is wrong"
        )


def _report(run: PipelineRun) -> None:
    """Write the HTML report of the output folder and say where it is."""
    from megasynth_attr.report.page import write_report

    print(f"report    {write_report(run.out, chapters=run.chapters)}", flush=True)


GENERATE = Stage[PipelineRun](
    "generate",
    "render every scene that does not exist yet",
    _generate,
    check=_check_generate,
    ready=_check_machine,
    cost=_rendering_cost,
)
VERIFY = Stage[PipelineRun](
    "verify", "record the isolation of the datasets and check them from their files", _verify, despite_failure=True
)
REPORT = Stage[PipelineRun](
    "report",
    "write pages about everything in the output folder",
    _report,
    ready=lambda run: require_report_libraries(),
    despite_failure=True,
)
