"""How isolated the datasets of an attribute are, recorded in each dataset.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import SceneRejected
from megasynth_attr.dataset.record import finalise
from megasynth_attr.farm.library import cache_dir, open_library
from megasynth_attr.scene.config import Config, Experiment
from megasynth_attr.scene.factor import Records
from megasynth_attr.scene.isolation import compare, factor_spread, reference_of, reference_spread
from megasynth_attr.scene.sample import sample_scene
from megasynth_attr.scene.spec import Scene


def record_isolation(experiment: Experiment, config: Config, folders: Mapping[int, Path]) -> None:
    """Write into each dataset.json how much every factor varies, relative to the reference.

    ``folders``: those of the datasets of ``config``, by index. The scenes are drawn again from the configuration, so a
    dataset that is only partly rendered gets the same row as a complete one. Those that cannot be drawn, whose failure
    rendering records, are left out; SceneRejected if none can.
    """
    library = open_library(config, cache_dir(experiment))
    reference = reference_of(config)
    full = reference_spread(reference, config, open_library(reference, cache_dir(experiment)).records)
    count = min(config.isolation.scenes, config.content.scene_count)
    for index, folder in folders.items():
        scenes = _drawn(config, index, count, library.records)
        row = compare(factor_spread(scenes, library.records), full, config, len(scenes))
        finalise(folder, library.material_records(), to_plain(row))


def _drawn(config: Config, dataset_index: int, count: int, records: Records) -> list[Scene]:
    scenes: list[Scene] = []
    for index in range(count):
        try:
            scenes.append(sample_scene(config, dataset_index, index, records))
        except SceneRejected:
            if index == count - 1 and not scenes:
                raise
    return scenes
