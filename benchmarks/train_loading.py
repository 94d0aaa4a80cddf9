"""How fast training data is loaded, per worker, and what limits it.

Prints Markdown tables (benchmarks/train_loading.md holds a copy). Decoding is measured in CPU time of one thread, so
that other work on the machine does not count (medians over the frames), the loader as a whole in wall time.
disk_formats.py measures depth in other codecs.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from common import median_ms, print_table, ray_cast_dataset

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.dataset.images import read_depth, read_image
from megasynth_attr.dataset.reader import SceneData
from megasynth_attr.dataset.scene_files import size_of
from megasynth_train.data.batch import RawBatch
from megasynth_train.data.device import prepare
from megasynth_train.data.frames import check_depth, over_background
from megasynth_train.data.loader import StepLoader
from megasynth_train.data.plan import Sampling
from megasynth_train.data.scene import OURS
from megasynth_train.data.sources import TrainingData, open_sources
from megasynth_train.training.settings import DataSettings

HELP = Help(
    usage="python benchmarks/train_loading.py [data=FOLDER ...] [key=value ...]",
    explanation="Measures how fast training data is loaded, per worker, and what limits it.",
    examples=("python benchmarks/train_loading.py data=runs/demo workers=[0,4]",),
)


@dataclass(frozen=True)
class Options:
    """What is loaded."""

    data: tuple[str, ...] = setting((), "datasets or experiments; empty: 518 × 518 px, ray-cast", literal=True)
    frames: int = setting(24, "frames decoded for the first table", minimum=1)
    steps: int = setting(4, "steps loaded for the second table", minimum=1)
    workers: tuple[int, ...] = setting((0, 1, 2), "numbers of workers", minimum=0)


def main(words: list[str]) -> None:
    """Measure and print all tables."""
    options = parse(Options, words, HELP)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="train_loading_") as scratch:
        words = ("render.width_px=518", "render.height_px=518", "frames=8", "scene_count=2")
        sources = options.data or (str(ray_cast_dataset(Path(scratch), 6, *words)),)
        views = Uniform(4, 16 if options.data else 8)
        settings = DataSettings(sources=sources, validation_share=0, views=views, width_px=518)
        data = open_sources(settings)
        height, width = data.train[0].image_size_hw
        print(f"{len(data.train)} scenes of {width} × {height} px, {os.cpu_count()} cores, torch {torch.__version__}\n")
        decoding_table(data, options.frames)
        loader_table(data, settings, options.steps, options.workers)
        batch_table(data, settings, options.steps)


def decoding_table(data: TrainingData, frames: int) -> None:
    """Print what one frame costs a worker."""
    views = [view for s in data.train if s.layout == OURS for view in SceneData(s.folder).views][:frames]
    if not views:
        print("no dataset of our own layout among the sources: no decoding table\n")
        return
    files = {"PNG decode": [v.file("rgb") for v in views], "EXR decode": [v.file("depth") for v in views]}
    images, depths = [read_image(f) for f in files["PNG decode"]], [read_depth(f) for f in files["EXR decode"]]
    where = files["PNG decode"][0]  # only named in errors
    stages = {
        "PNG decode": (read_image, files["PNG decode"]),
        "composite on white": (lambda image: over_background(image, where), images),
        "EXR decode": (read_depth, files["EXR decode"]),
        "check depth": (lambda depth: check_depth(depth, where), depths),
        "collate (copy into one array)": (lambda pair: [a.copy() for a in pair], [*zip(images, depths, strict=True)]),
    }
    times = {name: median_ms(function, items, time.thread_time) for name, (function, items) in stages.items()}
    total = sum(times.values())
    rows = []
    for name, ms in times.items():
        sizes = [size_of(f) / 1e3 for f in files.get(name, ())]
        rows.append((name, f"{ms:.2f}", f"{ms / total:.0%}", f"{statistics.mean(sizes):.0f}" if sizes else ""))
    rows.append((f"sum: {1e3 / total:.0f} frames per second and worker", f"{total:.2f}", "", ""))
    print_table("of one frame", "ms | share | kB on disk", rows)


def loader_table(data: TrainingData, settings: DataSettings, steps: int, workers: Sequence[int]) -> None:
    """Print images per second of the whole loader, after a first step that starts the workers."""
    rows = []
    for count in workers:
        changed = replace(settings, workers=count, prefetch=1)
        with closing(StepLoader(Sampling(data.train, changed, 0), range(steps + 1 + count))) as loader:
            iterator = iter(loader)
            for _ in range(1 + count):  # batches prepared while the workers started do not count
                batch = next(iterator)
            start, start_cpu, images, size = time.perf_counter(), time.process_time(), 0, 0.0
            for batch in iterator:
                images += sum(map(len, batch.views))
                size = megabytes(batch)
            rate = images / (time.perf_counter() - start)
            own_ms = 1e3 * (time.process_time() - start_cpu) / images
        where = count or "0 (in the training process)"
        rows.append((where, f"{rate:.0f}", f"{rate / max(count, 1):.0f}", f"{size:.0f}", f"{own_ms:.1f}"))
    head = "images/s | per process | MB per step | CPU ms per image in the training process"
    print_table("workers", head, rows)


def batch_table(data: TrainingData, settings: DataSettings, steps: int) -> None:
    """Print the time of a step's transfer and preparation after the workers, on the available device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    sampling = Sampling(data.train, replace(settings, workers=0), 0)
    batches = list(StepLoader(sampling, range(steps), pin=device.type == "cuda"))
    images = statistics.mean(sum(map(len, b.views)) for b in batches)
    stages = {
        f"transfer ({megabytes(batches[0]):.0f} MB)": lambda raw: (raw.to(device), wait()),
        "transfer, crop, resize, jitter, masks, normalise": lambda raw: (prepare(raw, device, settings), wait()),
    }
    prepare(batches[0], device, settings)  # first use of every kernel
    rows = [(name, f"{median_ms(function, batches, time.perf_counter):.1f}") for name, function in stages.items()]
    print_table(f"of one step ({images:.0f} images) on {device.type}", "ms", rows)


def megabytes(batch: RawBatch) -> float:
    """Return the size of the images and depth that go to the device."""
    return sum(t.numel() * t.element_size() for t in (*batch.images_u8, *batch.depth_z)) / 1e6


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
