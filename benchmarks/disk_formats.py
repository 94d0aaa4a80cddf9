"""What a frame costs on disk and in time, by format.

python benchmarks/disk_formats.py                                     synthetic ray-cast frames, 518 × 518
python benchmarks/disk_formats.py --dataset runs/demo/texture_00      frames of a dataset

Prints Markdown tables (docs/formats.md holds a copy). Times are processor time, so that other work on the machine
does not count (medians over the frames); files go to a temporary folder, in memory where /dev/shm exists.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import OpenEXR

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.exr import encode_exr
from megasynth_attr.dataset import images
from megasynth_attr.dataset.export.__main__ import Options, export_dataset
from megasynth_attr.dataset.reader import open_dataset

EXR_COMPRESSIONS = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "ZSTD")  # PXR24 keeps 24 of float32's bits
LOSSY = ("PXR24",)


@dataclass(frozen=True)
class Sample:
    """The arrays of one frame."""

    rgba: np.ndarray
    depth_z: np.ndarray
    normal: np.ndarray
    position: np.ndarray


def main() -> None:
    """Measure and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="a dataset folder; without it, ray-cast frames are used")
    parser.add_argument("--frames", type=int, default=8, help="frames measured (default 8)")
    parser.add_argument("--size", type=int, default=518, help="size of the synthetic frames (default 518)")
    arguments = parser.parse_args()
    if arguments.dataset is None:
        samples, origin = synthetic_samples(arguments.frames, arguments.size), "synthetic ray-cast frames"
    else:
        samples, origin = dataset_samples(arguments.dataset, arguments.frames), f"frames of {arguments.dataset.name}"
    height, width = samples[0].depth_z.shape
    print(f"{len(samples)} {origin}, {width} × {height} px; kB = 1000 bytes per frame, ms per frame\n")
    with scratch_folder() as folder:
        png_table(samples, folder)
        depth_table(samples, folder)
        layer_table(samples, folder)
        if arguments.dataset is None:
            export_table(synthetic_dataset(folder, arguments.frames, arguments.size), folder)
        else:
            export_table(arguments.dataset, folder)


def png_table(samples: list[Sample], folder: Path) -> None:
    """Print size and time by PNG compression level."""
    print("| RGBA PNG, level | kB | write ms | read ms |\n|---|---|---|---|")
    for level in range(10):
        file = folder / "a.png"

        def write(sample: Sample, level: int = level, file: Path = file) -> None:
            file.write_bytes(images.png_bytes(sample.rgba, level))

        size, written, read = measure(samples, write, lambda file=file: images.read_image(file), file)
        mark = " (used)" if level == images.PNG_LEVEL else ""
        print(f"| {level}{mark} | {size / 1e3:.0f} | {written:.1f} | {read:.1f} |")
    print()


def depth_table(samples: list[Sample], folder: Path) -> None:
    """Print size, time and error of depth by precision and EXR compression; OpenEXR's encoder next to ours."""
    print("| depth EXR | kB | write ms | read ms | largest relative error |\n|---|---|---|---|---|")
    file = folder / "a.exr"
    for precision in ("float32", "float16"):
        codecs: dict[str, tuple[Callable[[np.ndarray], None], Callable[[], np.ndarray]]] = {
            "ZIP (used)": (
                lambda depth: file.write_bytes(encode_exr({"Z": depth}, images.EXR_COMPRESSION)),
                lambda: images.read_exr(file)["Z"],
            )
        }
        for name in EXR_COMPRESSIONS:
            if hasattr(OpenEXR, f"{name}_COMPRESSION"):
                label = f"{name} by OpenEXR{', lossy' if name in LOSSY else ''}"
                codecs[label] = (partial(openexr_write, file, name), partial(openexr_read, file))
        for name, (write, read) in codecs.items():
            encode = partial(write_converted, write, precision)
            size, written, reading = measure(samples, encode, read, file)
            hit = samples[-1].depth_z > 0
            error = np.abs(read()[hit].astype(np.float64) / samples[-1].depth_z[hit] - 1).max()
            shown = "0" if error == 0 else f"{error:.0e}"
            print(f"| {precision} {name} | {size / 1e3:.0f} | {written:.1f} | {reading:.1f} | {shown} |")
    print()


def write_converted(write: Callable[[np.ndarray], None], precision: str, sample: Sample) -> None:
    """Write a sample's depth at a precision."""
    write(sample.depth_z.astype(precision))


def openexr_write(file: Path, compression: str, depth: np.ndarray) -> None:
    """Write depth with the OpenEXR library."""
    header = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"Z": depth}).write(str(file))


def openexr_read(file: Path) -> np.ndarray:
    """Read depth with the OpenEXR library."""
    return OpenEXR.File(str(file), separate_channels=True).channels()["Z"].pixels


def layer_table(samples: list[Sample], folder: Path) -> None:
    """Print size and time of the optional layers."""
    print("| optional layer | kB | write ms | read ms |\n|---|---|---|---|")
    layers = {"normal": "float16", "position": "float32"}
    for layer, precision in layers.items():
        file = folder / "a.exr"

        def write(sample: Sample, layer: str = layer, precision: str = precision, file: Path = file) -> None:
            images.write_vectors(file, getattr(sample, layer), precision)

        size, written, read = measure(samples, write, lambda file=file: images.read_vectors(file), file)
        print(f"| {layer}, {precision} ZIP | {size / 1e3:.0f} | {written:.1f} | {read:.1f} |")
    print()


def export_table(dataset: Path, folder: Path) -> None:
    """Print size and time of the dataset itself and of every export of its first scene."""
    scene = open_dataset(dataset).scenes[0]
    frames = len(scene.views)
    print("| one scene as | kB per frame | export ms per frame |\n|---|---|---|")
    print(f"| dataset | {folder_bytes(scene.path) / frames / 1e3:.0f} | – |")
    for name, words in (
        ("paper", {}),
        ("paper, link=true", {"link": True}),
        ("colmap", {}),
        ("nerfstudio, depth=png", {"depth": "png"}),
        ("nerfstudio, depth=npy", {"depth": "npy"}),
        ("webdataset", {}),
    ):
        out = folder / f"export {name}"
        options = Options(name.split(",")[0], str(dataset), str(out), scenes=str(scene.index), **words)
        start = time.process_time()
        try:
            export_dataset(options, progress=False)
        except EnvironmentProblem as error:  # no hard links from here to the scratch folder
            print(f"| {name} | – | not possible here: {error} |")
            continue
        elapsed = (time.process_time() - start) * 1e3 / frames
        print(f"| {name} | {folder_bytes(out) / frames / 1e3:.0f} | {elapsed:.0f} |")


def measure(
    samples: list[Sample], write: Callable[[Sample], None], read: Callable[[], object], file: Path
) -> tuple[float, float, float]:
    """Return (mean bytes, median write time in ms, median read time in ms)."""
    sizes, written, read_times = [], [], []
    for sample in samples:
        start = time.process_time()
        write(sample)
        middle = time.process_time()
        read()
        read_times.append((time.process_time() - middle) * 1e3)
        written.append((middle - start) * 1e3)
        sizes.append(file.stat().st_size)
    return statistics.mean(sizes), statistics.median(written), statistics.median(read_times)


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


def synthetic_module() -> object:
    """Return tests/dataset/synthetic.py, which makes frames without Blender."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "dataset"))
    import synthetic

    return synthetic


def synthetic_samples(count: int, size: int) -> list[Sample]:
    """Return ray-cast frames with a fine colour texture and sensor-like noise of one level, as path tracing leaves."""
    synthetic = synthetic_module()
    settings = synthetic.config(f"render.width_px={size}", f"render.height_px={size}", f"frames={count}")
    samples = []
    for frame in synthetic.frames(settings, synthetic.scene(settings, 0)):
        noise = np.random.default_rng(len(samples)).integers(-1, 2, (size, size, 3))
        rgba = frame.rgba.copy()
        rgba[..., :3] = np.where(frame.rgba[..., 3:] > 0, np.clip(frame.rgba[..., :3] + noise, 0, 255), 0)
        samples.append(Sample(rgba, frame.depth_z, frame.normal, frame.position))
    return samples


def synthetic_dataset(folder: Path, frames: int, size: int) -> Path:
    """Write one ray-cast scene and return its dataset."""
    synthetic = synthetic_module()
    words = (f"render.width_px={size}", f"render.height_px={size}", f"frames={frames}", "scene_count=1")
    return synthetic.write_dataset(synthetic.config(*words), folder / "dataset")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a temporary folder, in memory where possible."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files, hard links to elsewhere not counted."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.stat().st_nlink == 1)


if __name__ == "__main__":
    main()
