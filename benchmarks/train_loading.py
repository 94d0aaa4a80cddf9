"""How fast training data is loaded, per worker, and what limits it.

Prints Markdown tables (benchmarks/train_loading.md holds a copy). Decoding is measured in processor time of one
thread, so that other work on the machine does not count (medians over the frames); the loader as a whole in wall time.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import OpenEXR
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "dataset"))

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.exr import encode_exr
from megasynth_attr.core.fields import setting
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.dataset.images import read_depth, read_image
from megasynth_attr.dataset.reader import SceneData
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
    arguments = parse(Options, words, HELP)
    torch.set_num_threads(1)
    scratch = Path(tempfile.mkdtemp(prefix="train_loading_"))
    try:
        sources = arguments.data or [str(synthetic_dataset(scratch))]
        views = Uniform(4, 8 if not arguments.data else 16)
        settings = DataSettings(sources=tuple(sources), validation_share=0, views=views)
        data = open_sources(settings)
        height, width = data.train[0].image_size_hw
        print(f"{len(data.train)} scenes of {width} × {height} px, {os.cpu_count()} cores, torch {torch.__version__}\n")
        decoding_table(data, arguments.frames, scratch)
        loader_table(data, settings, arguments.steps, arguments.workers)
        batch_table(data, settings, arguments.steps)
    finally:
        shutil.rmtree(scratch)


def synthetic_dataset(folder: Path) -> Path:
    """Return a dataset of 2 scenes × 8 frames of 518 × 518 pixels; noise makes the colours as costly as textures."""
    import synthetic

    config = synthetic.config("render.width_px=518", "render.height_px=518", "frames=8", "scene_count=2")
    dataset = synthetic.write_dataset(config, folder)
    generator = np.random.default_rng(0)
    for file in dataset.glob("scenes/*/*/rgb/*.png"):
        rgba = np.asarray(Image.open(file)).astype(np.int16)
        rgba[..., :3] += generator.integers(-6, 7, rgba[..., :3].shape, dtype=np.int16) * (rgba[..., 3:] > 0)
        Image.fromarray(rgba.clip(0, 255).astype(np.uint8)).save(file, compress_level=4)
    return dataset


def decoding_table(data: TrainingData, frames: int, folder: Path) -> None:
    """Print what one frame costs a worker, and depth in other codecs."""
    views = [view for s in data.train if s.layout == OURS for view in SceneData(s.folder).views][:frames]
    if not views:
        print("no dataset of our own layout among the sources: no decoding table\n")
        return
    pngs, exrs = [v.file("rgb") for v in views], [v.file("depth") for v in views]
    images, depths = [read_image(f) for f in pngs], [read_depth(f) for f in exrs]
    pairs = [*zip(images, depths, strict=True)]
    stages: dict[str, tuple[float, Sequence[Path]]] = {
        "PNG decode": (median_ms(read_image, pngs), pngs),
        "composite on white": (median_ms(lambda image: over_background(image, folder), images), ()),
        "EXR decode": (median_ms(read_depth, exrs), exrs),
        "check depth": (median_ms(lambda depth: check_depth(depth, folder), depths), ()),
        "collate (copy into one array)": (median_ms(lambda pair: [a.copy() for a in pair], pairs), ()),
    }
    total = sum(ms for ms, _ in stages.values())
    print("| of one frame | ms | share | kB on disk |\n|---|---|---|---|")
    for name, (ms, files) in stages.items():
        size = f"{statistics.mean(f.stat().st_size for f in files) / 1e3:.0f}" if files else ""
        print(f"| {name} | {ms:.2f} | {ms / total:.0%} | {size} |")
    print(f"| sum: {1e3 / total:.0f} frames per second and worker | {total:.2f} | | |\n")
    print("| depth as | kB | decode ms |\n|---|---|---|")
    for precision in ("float32", "float16"):
        for label, encode, decode in codecs(folder / "a.exr"):
            sizes = []
            times = []
            for depth in depths:
                encode(depth.astype(precision))
                sizes.append((folder / "a.exr").stat().st_size)
                times.append(median_ms(lambda _, decode=decode: decode(), [0] * 3))
            print(f"| {precision} {label} | {statistics.mean(sizes) / 1e3:.0f} | {statistics.median(times):.2f} |")
    print()


def codecs(file: Path) -> list[tuple[str, Callable[[np.ndarray], None], Callable[[], object]]]:
    """Return (name, write, read) of the ways to store depth that are compared."""

    def ours(kind: str) -> Callable[[np.ndarray], None]:
        return lambda depth: (file.write_bytes(encode_exr({"Z": depth}, kind)), None)[1]

    def theirs(kind: str) -> Callable[[np.ndarray], None]:
        header = {"compression": getattr(OpenEXR, f"{kind}_COMPRESSION"), "type": OpenEXR.scanlineimage}
        return lambda depth: OpenEXR.File(header, {"Z": depth}).write(str(file))

    def library() -> object:
        return OpenEXR.File(str(file), separate_channels=True).channels()["Z"].pixels

    def own() -> object:
        return read_depth(file)

    return [
        ("ZIP (written by the generator)", ours("zip"), own),
        ("none", ours("none"), own),
        ("ZIP, OpenEXR library", theirs("ZIP"), library),
        ("PIZ, OpenEXR library", theirs("PIZ"), library),
    ]


def loader_table(data: TrainingData, settings: DataSettings, steps: int, workers: Sequence[int]) -> None:
    """Print images per second of the whole loader, after a first step that starts the workers."""
    print("| workers | images/s | per process | MB per step | processor ms per image in the training process |")
    print("|---|---|---|---|---|")
    for count in workers:
        changed = replace(settings, workers=count, prefetch=1)
        with closing(StepLoader(Sampling(data.train, changed, 0), range(steps + 1 + count))) as loader:
            iterator = iter(loader)
            for _ in range(1 + count):  # what was prepared while the workers started is not counted
                batch = next(iterator)
            start, start_cpu, images, size = time.perf_counter(), time.process_time(), 0, 0.0
            for batch in iterator:
                images += sum(map(len, batch.views))
                size = megabytes(batch)
            rate = images / (time.perf_counter() - start)
            own_ms = 1e3 * (time.process_time() - start_cpu) / images
        where = count or "0 (in the training process)"
        print(f"| {where} | {rate:.0f} | {rate / max(count, 1):.0f} | {size:.0f} | {own_ms:.1f} |")
    print()


def batch_table(data: TrainingData, settings: DataSettings, steps: int) -> None:
    """Print what happens to a step after the workers, on the device there is."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sampling = Sampling(data.train, replace(settings, workers=0), 0)
    loader = StepLoader(sampling, range(steps), pin=device.type == "cuda")
    batches = list(loader)
    images = statistics.mean(sum(map(len, b.views)) for b in batches)

    def prepared(raw: RawBatch, options: DataSettings) -> None:
        prepare(raw, device, options)
        if device.type == "cuda":
            torch.cuda.synchronize()

    def moved(raw: RawBatch) -> None:
        raw.to(device)
        if device.type == "cuda":
            torch.cuda.synchronize()

    prepared(batches[0], settings)  # first use of every kernel
    print(f"| of one step ({images:.0f} images) on {device.type} | ms |\n|---|---|")
    print(f"| transfer ({megabytes(batches[0]):.0f} MB) | {wall_ms(moved, batches):.1f} |")
    whole = wall_ms(lambda batch: prepared(batch, settings), batches)
    print(f"| transfer, crop, resize, jitter, masks, normalise | {whole:.0f} |")


def megabytes(batch: RawBatch) -> float:
    """Return the size of what travels."""
    return sum(t.numel() * t.element_size() for t in (*batch.images_u8, *batch.depth_z)) / 1e6


def median_ms(function: Callable[..., object], items: Sequence[object]) -> float:
    """Return the median processor time of ``function(item)``, milliseconds."""
    return timed(function, items, time.thread_time)


def wall_ms(function: Callable[..., object], items: Sequence[object]) -> float:
    """Return the median wall time of ``function(item)``, milliseconds."""
    return timed(function, items, time.perf_counter)


def timed(function: Callable[..., object], items: Sequence[object], clock: Callable[[], float]) -> float:
    """Return the median time of ``function(item)`` by ``clock``, milliseconds."""
    times = []
    for item in items:
        start = clock()
        function(item)
        times.append(clock() - start)
    return 1e3 * statistics.median(times)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
