"""What a scene costs as one tar file, beside the folder: files, bytes, and frames read per second by one process.

Prints Markdown tables (docs/formats.md holds a copy). Before "cold" reads the system is asked to forget the contents of
all files, which leaves folders and the disk's own memory warm. Rates follow from the median time of a frame: wall time
where it is cold, CPU time where it is warm, so that other work on the machine does not count.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import median_ms, print_table, ray_cast_dataset

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.dataset import pack
from megasynth_attr.dataset.reader import View, open_dataset

HELP = Help(
    usage="python benchmarks/pack.py [dataset=FOLDER] [key=value ...]",
    explanation="Measures what a scene costs as a folder and as one tar file (write.pack=tar).",
    examples=("python benchmarks/pack.py dataset=runs/demo/texture_00",),
)


@dataclass(frozen=True)
class Options:
    """What is measured."""

    dataset: str = setting("", "a dataset folder, which is copied; empty: frames are ray-cast")
    scratch: str = setting("", "folder for the copies, on the disk to be measured; empty: the system's temporary one")
    scenes: int = setting(2, "ray-cast scenes", minimum=1)
    frames: int = setting(100, "frames of a ray-cast scene", minimum=1)
    size: int = setting(518, "width and height of the ray-cast frames", minimum=8)
    reads: int = setting(150, "frames read, drawn at random", minimum=1)


def main(words: list[str]) -> None:
    """Measure and print all tables."""
    options = parse(Options, words, HELP)
    with tempfile.TemporaryDirectory(prefix="pack_", dir=options.scratch or None) as name:
        folders, archives = Path(name) / "folder" / "texture_00", Path(name) / "tar" / "texture_00"
        if options.dataset:
            shutil.copytree(options.dataset, folders)
        else:
            ray_cast(folders, options)
        shutil.copytree(folders, archives)
        print(f"{len(open_dataset(folders).scenes)} scenes, {options.reads} reads, {os.cpu_count()} cores\n")
        packing, both = timed(archives, "tar"), timed(folders, "tar") + timed(folders, "folder")
        size_table({"folder": folders, "tar": archives})
        read_table({"folder": folders, "tar": archives}, options.reads)
        scenes = len(open_dataset(archives).scenes)
        print(f"seconds a scene: {packing / scenes:.2f} to pack it, {both / scenes:.2f} to pack and unpack it")


def ray_cast(folder: Path, options: Options) -> None:
    """Write a dataset of noisy ray-cast frames with checksums that fit."""
    import hostile

    sizes = (f"render.width_px={options.size}", f"render.height_px={options.size}")
    ray_cast_dataset(folder.parent, 1, *sizes, f"frames={options.frames}", f"scene_count={options.scenes}")
    for scene in open_dataset(folder).scenes:
        hostile.reseal_checksums(scene.path)


def timed(dataset: Path, to: str) -> float:
    """Return the seconds it takes to turn all scenes of a dataset into the form ``to``."""
    start = time.perf_counter()
    opened = open_dataset(dataset)
    for scene in opened.scenes:
        pack.convert(opened, scene.index, to)
    return time.perf_counter() - start


def size_table(datasets: dict[str, Path]) -> None:
    """Print how many files and bytes a scene is made of."""
    rows = []
    for form, dataset in datasets.items():
        scenes = open_dataset(dataset).scenes
        frames = sum(len(scene.views) for scene in scenes)
        paths = [path for scene in scenes for path in (scene.path, *scene.path.rglob("*"))]
        files = [path for path in paths if path.is_file()]
        size = sum(path.stat().st_size for path in files) / frames / 1e3
        taken = sum(path.stat().st_blocks * 512 for path in paths) / frames / 1e3
        per_scene = (len(files) / len(scenes), (len(paths) - len(files)) / len(scenes))
        rows.append((form, *(f"{number:.0f}" for number in per_scene), f"{size:.1f}", f"{taken:.1f}"))
    print_table("a scene as", "files | folders | kB per frame | kB per frame on the disk", rows)


def read_table(datasets: dict[str, Path], reads: int) -> None:
    """Print frames per second of random access."""

    def bytes_of(view: View) -> object:
        return view.file("rgb").read_bytes(), view.file("depth").read_bytes()

    def arrays_of(view: View) -> object:
        return view.image, view.depth_z

    rows = []
    for form, anew in (("folder", False), ("tar", False), ("tar", True)):
        dataset = datasets[form]
        forget(dataset)
        rates = (
            rate(dataset, reads, bytes_of, anew, time.perf_counter),
            rate(dataset, reads, bytes_of, anew, time.process_time),
            rate(dataset, reads, arrays_of, anew, time.process_time),
        )
        rows.append((f"{form}, index read each time" if anew else form, *(f"{number:.0f}" for number in rates)))
    print_table("frames per second", "bytes, cold | bytes, warm | decoded, warm", rows)


def rate(dataset: Path, reads: int, read: Callable[[View], object], anew: bool, clock: Callable[[], float]) -> float:
    """Return the frames per second of reads in random order; ``anew``: each as if it were the first of its scene."""
    draw = random.Random(0)
    views = [view for scene in open_dataset(dataset).scenes for view in scene.views]

    def read_one(view: View) -> None:
        if anew:
            os.utime(view.scene_path)  # a changed file's index is not used again
        read(view)

    return 1e3 / median_ms(read_one, [draw.choice(views) for _ in range(reads)], clock)


def forget(dataset: Path) -> None:
    """Ask the system to drop the contents of all files of a dataset from memory."""
    for path in dataset.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
