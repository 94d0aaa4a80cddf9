"""Size on disk and time of a frame, by format.

Prints Markdown tables (docs/formats.md holds a copy). Times are CPU time, so that other work on the machine does not
count (medians over the frames); files go to a temporary folder, in memory if /dev/shm exists.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import OpenEXR
from common import median_ms, print_table, ray_cast_dataset

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import EnvironmentProblem, run_main
from megasynth_attr.core.exr import encode_exr
from megasynth_attr.core.fields import setting
from megasynth_attr.dataset import images
from megasynth_attr.dataset.export.__main__ import Options as ExportOptions
from megasynth_attr.dataset.export.__main__ import export_dataset
from megasynth_attr.dataset.reader import open_dataset
from megasynth_attr.dataset.scene_files import bytes_on_disk

EXR_COMPRESSIONS = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "ZSTD")
LOSSY = ("PXR24",)  # it keeps 24 of float32's bits
EXPORTS = {
    "paper": {},
    "paper, link=true": {"link": True},
    "colmap": {},
    "nerfstudio, depth=png": {"depth": "png"},
    "nerfstudio, depth=npy": {"depth": "npy"},
    "webdataset": {},
    "wai": {},
    "huggingface": {},
    "huggingface, flow=true": {"flow": True},
}
HELP = Help(
    usage="python benchmarks/disk_formats.py [dataset=FOLDER] [key=value ...]",
    explanation="Measures the size on disk and the read and write times of a frame, by format.",
    examples=("python benchmarks/disk_formats.py dataset=runs/demo/texture_00",),
)


@dataclass(frozen=True)
class Sample:
    """The arrays of one frame."""

    rgba: np.ndarray
    depth_z: np.ndarray
    normal: np.ndarray
    position: np.ndarray


@dataclass(frozen=True)
class Options:
    """Which frames are measured."""

    dataset: str = setting("", "a dataset folder; empty: frames are ray-cast")
    frames: int = setting(8, "frames measured", minimum=1)
    size: int = setting(518, "width and height of the ray-cast frames", minimum=8)


def main(words: list[str]) -> None:
    """Measure and print all tables."""
    options = parse(Options, words, HELP)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        dataset, origin = Path(options.dataset), f"frames of {Path(options.dataset).name}"
        if not options.dataset:  # noise of one level, as path tracing leaves it
            sizes = (f"render.width_px={options.size}", f"render.height_px={options.size}", f"frames={options.frames}")
            words = (*sizes, "scene_count=1", "write.normal=true")
            dataset, origin = ray_cast_dataset(folder / "dataset", 1, *words), "synthetic ray-cast frames"
        samples = dataset_samples(dataset, options.frames)
        height, width = samples[0].depth_z.shape
        print(f"{len(samples)} {origin}, {width} × {height} px; kB = 1000 bytes per frame, ms per frame\n")
        png_table(samples, folder / "a.png")
        depth_table([sample.depth_z for sample in samples], folder / "a.exr")
        layer_table(samples, folder / "a.exr")
        export_table(dataset, folder)


def png_table(samples: list[Sample], file: Path) -> None:
    """Print size and time by PNG compression level."""
    rows = []
    for level in range(10):
        cost = disk_cost([s.rgba for s in samples], partial(write_png, file, level), images.read_image, file)
        rows.append([f"{level}{' (used)' if level == images.PNG_LEVEL else ''}", *cost])
    print_table("RGBA PNG, level", "kB | write ms | read ms", rows)


def write_png(file: Path, level: int, rgba: np.ndarray) -> None:
    """Write a picture at a compression level."""
    file.write_bytes(images.png_bytes(rgba, level))


def depth_table(depths: list[np.ndarray], file: Path) -> None:
    """Print size, time and error of depth by precision and EXR compression, with our encoder and OpenEXR's."""
    codecs = {
        "ZIP (used)": (partial(write_ours, file, images.EXR_COMPRESSION), images.read_depth),
        "none": (partial(write_ours, file, "none"), images.read_depth),
    }
    for name in EXR_COMPRESSIONS:
        if hasattr(OpenEXR, f"{name}_COMPRESSION"):
            label = f"{name} by OpenEXR{', lossy' if name in LOSSY else ''}"
            codecs[label] = (partial(write_openexr, file, name), read_openexr)
    rows = []
    hit = depths[-1] > 0
    for precision in ("float32", "float16"):
        for name, (write, read) in codecs.items():
            cost = disk_cost([depth.astype(precision) for depth in depths], write, read, file)
            error = np.abs(read(file)[hit].astype(np.float64) / depths[-1][hit] - 1).max()
            rows.append([f"{precision} {name}", *cost, "0" if error == 0 else f"{error:.0e}"])
    print_table("depth EXR", "kB | write ms | read ms | largest relative error", rows)


def write_ours(file: Path, compression: str, depth: np.ndarray) -> None:
    """Write depth as the generator does."""
    file.write_bytes(encode_exr({"Z": depth}, compression))


def write_openexr(file: Path, compression: str, depth: np.ndarray) -> None:
    """Write depth with the OpenEXR library."""
    header = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"Z": depth}).write(str(file))


def read_openexr(file: Path) -> np.ndarray:
    """Read depth with the OpenEXR library."""
    return OpenEXR.File(str(file), separate_channels=True).channels()["Z"].pixels


def layer_table(samples: list[Sample], file: Path) -> None:
    """Print size and time of the optional layers."""
    rows = []
    for layer, precision in {"normal": "float16", "position": "float32"}.items():
        write = partial(images.write_vectors, file, precision=precision)
        cost = disk_cost([getattr(sample, layer) for sample in samples], write, images.read_vectors, file)
        rows.append([f"{layer}, {precision} ZIP", *cost])
    print_table("optional layer", "kB | write ms | read ms", rows)


def export_table(dataset: Path, folder: Path) -> None:
    """Print size and time of the dataset itself and of every export of its first scene."""
    scene = open_dataset(dataset).scenes[0]
    frames = len(scene.views)
    rows = [("dataset", f"{bytes_on_disk(scene.path) / frames / 1e3:.0f}", "–")]
    for name, words in EXPORTS.items():
        out = folder / f"export {name}"
        options = ExportOptions(name.split(",")[0], str(dataset), str(out), scenes=str(scene.index), **words)
        try:
            elapsed = median_ms(lambda options: export_dataset(options, progress=False), [options])
        except EnvironmentProblem as error:  # no hard links from here to the scratch folder
            rows.append((name, "–", f"not possible here: {error}"))
            continue
        rows.append((name, f"{folder_bytes(out) / frames / 1e3:.0f}", f"{elapsed / frames:.0f}"))
    print_table("one scene as", "kB per frame | export ms per frame", rows)


def disk_cost(
    items: list[np.ndarray], write: Callable[[np.ndarray], object], read: Callable[[Path], object], file: Path
) -> tuple[str, str, str]:
    """Return the mean size in kB and the median times in ms of writing items to ``file`` and of reading it."""
    sizes, written, read_times = [], [], []
    for item in items:
        written.append(median_ms(write, [item]))
        read_times.append(median_ms(read, [file]))
        sizes.append(file.stat().st_size)
    times = (f"{statistics.median(times):.1f}" for times in (written, read_times))
    return f"{statistics.mean(sizes) / 1e3:.0f}", *times


def dataset_samples(path: Path, count: int) -> list[Sample]:
    """Return frames spread evenly over a dataset; normals and positions it lacks are made from depth."""
    views = [view for scene in open_dataset(path).scenes for view in scene.views]
    chosen = [views[i] for i in np.unique(np.linspace(0, len(views) - 1, count).round().astype(int))]
    samples = []
    for view in chosen:
        points = np.nan_to_num(view.points_world()).astype(np.float32)
        normal = view.normal
        if normal is None:
            along_v, along_u = np.gradient(points, axis=(0, 1))
            normal = np.cross(along_u, along_v)
            normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
        samples.append(Sample(view.image, view.depth_z, normal.astype(np.float32), points))
    return samples


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files, without hard links."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.stat().st_nlink == 1)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
