"""How isolated the datasets of an attribute are, recorded in each dataset.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from megasynth_attr.core.codec import to_plain
from megasynth_attr.dataset.record import finalise
from megasynth_attr.farm.library import cache_dir, open_library
from megasynth_attr.scene.config import Config, Experiment
from megasynth_attr.scene.isolation import compare, factor_spread, reference_of, reference_spread
from megasynth_attr.scene.sample import sample_scene


def record_isolation(experiment: Experiment, config: Config, folders: Mapping[int, Path]) -> None:
    """Write into each dataset.json how much every factor varies, relative to the reference.

    ``folders``: those of the datasets of ``config``, by index. The scenes are drawn again from the configuration, so a
    dataset that is only partly rendered gets the same row as a complete one.
    """
    library = open_library(config, cache_dir(experiment))
    reference = reference_of(config)
    full = reference_spread(reference, config, open_library(reference, cache_dir(experiment)).records)
    count = min(config.isolation.scenes, config.content.scene_count)
    for index, folder in folders.items():
        scenes = [sample_scene(config, index, i, library.records) for i in range(count)]
        row = compare(factor_spread(scenes, library.records), full, config, count)
        finalise(folder, library.material_records(), to_plain(row))
