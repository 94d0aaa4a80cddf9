"""An experiment of ray-cast datasets with a preset that trains on them in seconds, for the tests of the stages."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from megasynth_attr.dataset.writer import finalise, open_for_writing
from megasynth_attr.farm.experiment import open_experiment
from megasynth_attr.scene.config import resolve

sys.path.append(str(Path(__file__).parents[2] / "dataset"))
import synthetic

PRESET = """\
# A tiny experiment: two attributes, two datasets each, and two for the comparison.
members: [texture, camera]
downstream: everything
dataset_count: 2
scene_count: 2
frames: 3
render: {width_px: 42, height_px: 42}
training:
  model: {size: vggt-tiny}
  data: {width_px: 28, views: [2, 2], images_per_step: 4, validation_share: 0, workers: 0}
  adapter: {mode: lora, rank: 2}
  optim: {steps: 3, lr: 1.0e-2}
  run: {device: cpu, threads: 1, log_every: 1, validate_every: 0, progress: false}
  mining: {dimension: 2, null_draws: 3, splits: 1}
  mine: {workers: 1, progress: false}
  compare:
    methods: [base, heads, subspace]
    seeds: [0]
    optim: {steps: 2}
    test: {views: 2, width_px: 28, max_points: 300, pictures: false}
"""


def write_preset(folder: Path) -> Path:
    """Write the preset and return its file."""
    file = folder / "small.yaml"
    file.write_text(PRESET)
    return file


def write_datasets(preset: Path, out: Path) -> None:
    """Write all datasets of the preset, as rendering would leave them."""
    experiment = resolve([f"preset={preset}", f"out={out}"])
    open_experiment(experiment)
    for config in experiment.configs:
        for index in range(config.content.dataset_count):
            folder = open_for_writing(config, out, index)
            for scene in range(config.content.scene_count):
                spec = synthetic.scene(config, scene + 2 * index)
                spec = dataclasses.replace(spec, dataset_index=index, scene_index=scene)
                synthetic.write_scene(config, folder, spec)
            finalise(folder, synthetic.MATERIALS)
