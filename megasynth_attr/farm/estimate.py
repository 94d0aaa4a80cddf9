"""What a frame costs in bytes and seconds: measured where there is something to measure, assumed otherwise."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.codec import Part
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.fields import REQUIRED, read_part, setting
from megasynth_attr.dataset.paths import finished_by_thousand, scene_path
from megasynth_attr.dataset.scene_files import bytes_on_disk
from megasynth_attr.farm.events import host_name, latest_events
from megasynth_attr.scene.config import Config

BYTES_PER_PIXEL = {"rgb": 1.2, "depth": 2.0, "normal": 4.0, "instance": 0.05, "position": 6.0}  # of a full picture
COVERED = {"objects": 0.35}  # share of a picture that is not empty; 1 for other layouts
BYTES_PER_FRAME = 1_000  # poses, checksums and file heads
CORE_S_PER_MEGAPIXEL = {"draft": 8.0, "default": 20.0, "reference": 45.0}
GPU_S_PER_MEGAPIXEL = 1.0
MEASURED_SCENES = 5


@dataclass(frozen=True)
class Cost:
    """``value`` per frame, and whether it was measured here or is an assumption."""

    value: float
    measured: bool


@dataclass(frozen=True)
class _Seconds(Part):
    wall_s: float = setting(REQUIRED, "", minimum=0)


@dataclass(frozen=True)
class _SceneDone(Part):
    """What an event says of the cost of a scene."""

    frames: int = setting(REQUIRED, "", minimum=1)
    seconds: _Seconds = setting(REQUIRED, "")


def bytes_per_frame(config: Config, dataset: Path) -> Cost:
    """Return the bytes one frame takes on disk: the mean of complete scenes, or a guess from image size and layers."""
    indices = next(filter(None, finished_by_thousand(dataset)), [])
    sample = indices[:: max(1, len(indices) // MEASURED_SCENES)][:MEASURED_SCENES]
    if sample:
        size = sum(bytes_on_disk(scene_path(dataset, index)) for index in sample)
        return Cost(size / (len(sample) * config.content.frames), True)
    write, pixels = config.write, config.render.width_px * config.render.height_px
    per_pixel = BYTES_PER_PIXEL["rgb"] + BYTES_PER_PIXEL["depth"] * (0.5 if write.depth == "float16" else 1.0)
    per_pixel += sum(BYTES_PER_PIXEL[layer] for layer in ("normal", "instance", "position") if getattr(write, layer))
    covered = COVERED.get(getattr(config.factors.get("geometry"), "layout", ""), 1.0)
    return Cost(pixels * covered * per_pixel + BYTES_PER_FRAME, False)


def worker_seconds_per_frame(config: Config, out: Path, threads: int) -> Cost:
    """Return how long one worker takes for one frame: the median of this machine's latest events, or a stated guess."""
    like = cost_class(config, threads)
    rates = []
    for event in latest_events(out, host_name()):
        if event.get("event") == "scene_done" and event.get("cost_class") == like:
            with suppress(DatasetError):  # it is no event of ours
                done = read_part(_SceneDone, event, "an event")
                rates.append(done.seconds.wall_s / done.frames)
    if rates:
        return Cost(statistics.median(rates), True)
    megapixels = config.render.width_px * config.render.height_px / 1e6
    if config.run.device != "cpu":
        return Cost(0.2 + GPU_S_PER_MEGAPIXEL * megapixels, False)
    return Cost(0.2 + CORE_S_PER_MEGAPIXEL[config.content.quality] * megapixels / threads, False)


def cost_class(config: Config, threads: int) -> str:
    """Return a word that is equal for scenes that cost about the same: attribute, size, sampling, device, threads."""
    render = config.render
    parts = [config.attribute, f"{render.width_px}x{render.height_px}", config.content.quality, str(render.samples)]
    return ":".join([*parts, render.denoiser, config.run.device, str(threads)])
