"""How fast training data is loaded, per worker, and what limits it.

Prints Markdown tables (benchmarks/train_loading.md holds a copy). Decoding is measured in CPU time of one thread, so
that other work on the machine does not count (medians over the frames), the loader as a whole in wall time, with
nothing and with a stand-in for a GPU to take the batches. disk_formats.py measures depth in other codecs.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import median_ms, print_table, ray_cast_dataset

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.exr import decode_intact_exr
from megasynth_attr.core.fields import setting
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.dataset.reader import SceneData
from megasynth_attr.dataset.scene_files import size_of
from megasynth_train.data.batch import RawBatch, load_step
from megasynth_train.data.cache import SHARED_MEMORY, open_cache
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
EARLIER = ("before: PNG decode, as an array, and on white", "before: EXR decode (still used in Blender)")


@dataclass(frozen=True)
class Options:
    """What is loaded."""

    data: tuple[str, ...] = setting((), "datasets or experiments; empty: 518 × 518 px, ray-cast", literal=True)
    frames: int = setting(24, "frames decoded for the first table", minimum=1)
    steps: int = setting(4, "steps loaded for the second table", minimum=1)
    workers: tuple[int, ...] = setting((0, 1, 2), "numbers of workers", minimum=0)
    step_s: float = setting(0.8, "time in which the stand-in for a GPU takes a step", minimum=0)
    stand_in_steps: int = setting(20, "steps of the stand-in, with 4 workers; 0: no such table", minimum=0)
    cache: str = setting("", "folder in which caches are tried out; empty: /dev/shm")


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
        with tempfile.TemporaryDirectory(prefix="train_loading_", dir=options.cache or SHARED_MEMORY) as caches:
            cached = replace(settings, cache=f"{caches}/warm", cache_gib=4.0)
            reading_table(data, cached, options.steps, Path(caches))
            loader_table(data, settings, options.steps, options.workers)
            if options.stand_in_steps:
                stand_in_table(data, {"disk": settings, "a warm cache": cached}, options)
        batch_table(data, settings, options.steps)


def decoding_table(data: TrainingData, frames: int) -> None:
    """Print what one frame costs a worker."""
    views = [view for s in data.train if s.layout == OURS for view in SceneData(s.folder).views][:frames]
    if not views:
        print("no dataset of our own layout among the sources: no decoding table\n")
        return
    files = {"PNG decode": [v.file("rgb") for v in views], "EXR decode": [v.file("depth") for v in views]}
    pictures, depths = [view.picture for view in views], [view.depth_z for view in views]
    pairs = [*zip(map(over_background, pictures), depths, strict=True)]
    stages = {
        "PNG decode": (lambda view: view.picture, views),
        "composite on white": (over_background, pictures),
        "EXR decode": (lambda view: view.depth_by(decode_intact_exr), views),
        "check depth": (lambda depth: check_depth(depth, files["EXR decode"][0]), depths),
        "collate (copy into one array)": (lambda pair: [a.copy() for a in pair], pairs),
        EARLIER[0]: (lambda view: white_as_before(view.image), views),
        EARLIER[1]: (lambda view: view.depth_z, views),
    }
    times = {name: median_ms(function, items, time.thread_time) for name, (function, items) in stages.items()}
    total = sum(ms for name, ms in times.items() if name not in EARLIER)
    rows = []
    for name, ms in times.items():
        sizes = [size_of(f) / 1e3 for f in files.get(name, ())]
        share = "" if name in EARLIER else f"{ms / total:.0%}"
        rows.append((name, f"{ms:.2f}", share, f"{statistics.mean(sizes):.0f}" if sizes else ""))
    rows.insert(-len(EARLIER), (f"sum: {1e3 / total:.0f} frames per second and worker", f"{total:.2f}", "", ""))
    print_table("of one frame", "ms | share | kB on disk", rows)


def white_as_before(image: np.ndarray) -> np.ndarray:
    """Return an H×W×4 image on white as 0.1.0 does it."""
    alpha = image[..., 3]
    white_where_clear = (alpha == 0) * np.uint8(255)
    rgb = np.empty((*alpha.shape, 3), np.uint8)
    for channel in range(3):
        np.maximum(image[..., channel], white_where_clear, out=rgb[..., channel])
    rows, columns = np.nonzero((alpha > 0) & (alpha < 255))
    weight = alpha[rows, columns, None].astype(np.uint16)
    rgb[rows, columns] = (rgb[rows, columns] * weight + 255 * (255 - weight) + 127) // 255
    return rgb


def reading_table(data: TrainingData, settings: DataSettings, steps: int, caches: Path) -> None:
    """Print what an image costs where it comes from; the three take turns, so that other work slows all of them."""
    images = min(settings.images_per_step, int(settings.views.low) * len(data.train))  # no scene twice in a step
    sampling = Sampling(data.train, replace(settings, images_per_step=images), 0)
    warm = open_cache(settings)
    times: dict[str, list[float]] = {}
    for step in range(steps + 1):  # the first makes the warm cache warm
        cold = open_cache(replace(settings, cache=str(caches / f"cold_{step}")))
        load_step(sampling, step, warm)  # also reads the files for the first time
        for where, cache in {"disk": None, "disk, and into a cache": cold, "a warm cache": warm}.items():
            start = time.thread_time()
            batch = load_step(sampling, step, cache)
            times.setdefault(where, []).append((time.thread_time() - start) / sum(map(len, batch.views)))
    rows = [(where, f"{1e3 * (s := statistics.median(t)):.2f}", f"{1 / s:.0f}") for where, t in times.items()]
    print_table("image read from", "CPU ms | images/s and worker", rows)


def stand_in_table(data: TrainingData, sources: Mapping[str, DataSettings], options: Options) -> None:
    """Print how long a consumer that needs nothing of the CPU waits for batches."""
    rows = []
    for where, settings in sources.items():
        with closing(StepLoader(Sampling(data.train, settings, 0), range(options.stand_in_steps + 1))) as loader:
            iterator, waits, cpu = iter(loader), [], []
            next(iterator)
            for _ in range(options.stand_in_steps):
                time.sleep(options.step_s)
                start, start_cpu = time.perf_counter(), time.thread_time()
                next(iterator)
                waits.append(time.perf_counter() - start)
                cpu.append(time.thread_time() - start_cpu)
        columns = [1e3 * value for value in (statistics.median(cpu), statistics.median(waits), max(waits))]
        shares = [statistics.median(times) / options.step_s for times in (cpu, waits)]
        rows.append((where, *(f"{value:.1f}" for value in columns), *(f"{share:.1%}" for share in shares)))
    head = "CPU ms | ms waited | longest | CPU, share of a step | waited, share of a step"
    print_table(f"{options.step_s:g} s a step, {settings.workers} workers, images from", head, rows)


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
