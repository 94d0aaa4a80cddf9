"""The isolation matrix of generated datasets, written into their dataset.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from megasynth_attr.core.codec import to_plain
from megasynth_attr.dataset.record import finalise
from megasynth_attr.farm.library import open_library
from megasynth_attr.farm.materials import material_records
from megasynth_attr.scene.config import Config
from megasynth_attr.scene.isolation import compare, factor_spread, reference_of, reference_spread
from megasynth_attr.scene.sample import sample_scene


def measure_isolation(config: Config, folders: Mapping[int, Path], cache: Path) -> None:
    """Write into the dataset.json of each folder (by dataset index) how much every factor varies, relative to the
    reference.

    The scenes are drawn anew from the configuration, so a part of a dataset has the row of the whole.
    """
    library = open_library(config, cache)
    reference = reference_of(config)
    full = reference_spread(reference, config, open_library(reference, cache).records)
    count = min(config.isolation.scenes, config.content.scene_count)
    for index, folder in folders.items():
        scenes = [sample_scene(config, index, i, library.records) for i in range(count)]
        row = compare(factor_spread(scenes, library.records), full, config, count)
        finalise(folder, material_records(library), to_plain(row))
