"""The pipeline's stages: each a function of an Experiment that finds its input in the output folder."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem
from megasynth_attr.core.selection import parse_indices
from megasynth_attr.dataset.paths import DATASET_FILE, dataset_dir, dataset_name
from megasynth_attr.scene.config import Config, Experiment

if TYPE_CHECKING:
    from megasynth_train.experiment.settings import TrainingRun


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline: ``function`` is "module:name", imported before anything runs.

    ``extra`` names the pip extra that brings the module, if the base package does not. ``training``: it belongs to the
    training half and is told of the experiment what concerns it.
    """

    name: str
    meaning: str
    function: str
    extra: str = ""
    training: bool = False


def _training_stage(name: str, meaning: str) -> Stage:
    return Stage(name, meaning, f"megasynth_train.experiment.stages:{name}", extra="train", training=True)


STAGES = (
    Stage("generate", "render every scene that does not exist yet", "megasynth_attr.farm.generate:generate"),
    Stage(
        "verify",
        "check the datasets from their files and measure their isolation",
        "megasynth_attr.pipeline.stages:verify",
    ),
    _training_stage(
        "pretrain", "train the base model on the members' datasets (none unless training.pretrain says so)"
    ),
    _training_stage("cluster", "train one adapter for each dataset of the members"),
    _training_stage("mine", "find and compare the subspaces the attributes' adapters share"),
    _training_stage("compare", "train adapters of many kinds on the downstream data and evaluate them"),
    Stage("report", "write pages about all that is there", "megasynth_attr.pipeline.stages:report"),
)


MANY_FRAMES = 400  # below that, starting processes takes longer than checking


class VerificationFailed(DatasetError):
    """A dataset is not what it should be; the report still says what it is."""


def load(stage: Stage) -> Callable[[Experiment], None]:
    """Return the stage's function; EnvironmentProblem if its module, or one it needs, is not installed."""
    module_name, _, function = stage.function.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not stage.extra:
            raise
        raise EnvironmentProblem(
            f"stage {stage.name}: the module {error.name} is missing; `pip install megasynth-attr[{stage.extra}]`"
        ) from None
    run: Callable[[Any], None] = getattr(module, function)
    return (lambda experiment: run(training_run(experiment))) if stage.training else run


def training_half_is_here() -> bool:
    """Return whether the training half can be imported."""
    return importlib.util.find_spec("megasynth_train") is not None


def check_training_half(stage: str) -> None:
    """Raise EnvironmentProblem unless the training half is there, which a wheel always has and a checkout beside it."""
    if not training_half_is_here():
        raise EnvironmentProblem(
            f"stage {stage}: the training half (module megasynth_train) is not installed; "
            "`pip install megasynth-attr[train]`, or choose stages=generate,verify,report"
        )


def training_run(experiment: Experiment) -> TrainingRun:
    """Return what the training half is told of an experiment: folder, settings, and the datasets by attribute."""
    from megasynth_train.experiment.settings import TrainingRun

    names = {
        config.attribute: tuple(dataset_name(config.attribute, index) for index in _selected(config))
        for config in experiment.members
    }
    run = experiment.run
    downstream = names.pop(experiment.members[-1].attribute) if experiment.has_downstream else ()
    return TrainingRun(experiment.out, experiment.training, names, downstream, run.shard, run.max_runtime_s)


def verify(experiment: Experiment) -> None:
    """Check every selected dataset from its files and measure its isolation; VerificationFailed if one is wrong."""
    from megasynth_attr.dataset.verify import verify_dataset
    from megasynth_attr.farm.isolation import measure_isolation
    from megasynth_attr.farm.layout import available_cores
    from megasynth_attr.farm.library import cache_dir

    failed = []
    for config in experiment.members:
        folders = _selected_folders(config, experiment.out)
        measure_isolation(config, folders, cache_dir(experiment))
        scenes = parse_indices(config.run.scenes, config.content.scene_count, "scenes")
        partial = config.run.scenes.strip() != "all" or config.run.shard != "1/1"
        for folder in folders.values():
            frames = len(scenes) * config.content.frames
            workers = min(len(scenes), config.run.workers or available_cores()) if frames >= MANY_FRAMES else 1
            report = verify_dataset(folder, scenes=scenes if partial else None, workers=workers)
            print(report.table(), flush=True)
            if not report.passed:
                failed.append(folder.name)
    if failed:
        raise VerificationFailed(
            f"{', '.join(failed)}: verification failed; the tables above and verify.json say what is wrong"
        )


def report(experiment: Experiment) -> None:
    """Write the HTML report of the output folder and say where it is."""
    from megasynth_attr.report.page import write_report

    path = write_report(experiment.out)
    print(f"report    {path}", flush=True)


def _selected_folders(config: Config, out: Path) -> dict[int, Path]:
    """Return the folders of the selected datasets by index; DatasetError if one has not been generated."""
    folders = {}
    for index in _selected(config):
        folder = dataset_dir(out, config.attribute, index)
        if not (folder / DATASET_FILE).is_file():
            raise DatasetError(f"{folder} does not exist yet; run the stage generate first")
        folders[index] = folder
    return folders


def _selected(config: Config) -> list[int]:
    return parse_indices(config.run.datasets, config.content.dataset_count, "datasets")
