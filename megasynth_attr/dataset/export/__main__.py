"""``python -m megasynth_attr.dataset.export format=colmap dataset=<dir> out=<dir>``"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, run_main
from megasynth_attr.core.fields import REQUIRED, setting
from megasynth_attr.core.selection import as_ranges, parse_shard, select_indices
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.export import card, colmap, huggingface, nerfstudio, paper, push, wai, webdataset
from megasynth_attr.dataset.export.derived import Derived
from megasynth_attr.dataset.export.target import Piece, Target, batches, claim
from megasynth_attr.dataset.reader import Dataset, SceneData, open_dataset


@dataclass(frozen=True)
class Options:
    """The keys of the command."""

    format: str = setting(REQUIRED, "layout to write: paper, colmap, nerfstudio, webdataset, wai, huggingface")
    dataset: str = setting(REQUIRED, "a dataset folder such as runs/demo/texture_00")
    out: str = setting(REQUIRED, "folder to write to; new, empty, or an earlier export of the same format")
    scenes: str = setting("all", "which scenes: all, 0-9, 0,3,7")
    shard: str = setting("1/1", "i/n: only this share of the files; without it a run completes what the others made")
    link: bool = setting(False, "paper, colmap, nerfstudio: hard-link images instead of copying them")
    flow: bool = setting(False, "also optical flow and occlusion to the next and the previous view")
    disparity: float = setting(0.0, "also stereo disparity for this baseline in scene units; 0: none", minimum=0)
    pixel_centre: float = setting(0.5, "paper: 0.5 or 0; 0 writes cx and cy half a pixel less", minimum=0, maximum=0.5)
    model: str = setting("both", "colmap: kind of model files", options=["both", "text", "binary"])
    depth: str = setting("png", "nerfstudio: depth file type; png rounds to 0.001 units", options=["png", "npy"])
    scenes_per_shard: int = setting(10, "webdataset, huggingface: scenes in one file", minimum=1)
    val_scenes: int = setting(0, "wai, huggingface: how many scenes, the last ones, are the split val", minimum=0)
    license: str = setting("other", "huggingface: licence of the data on the card, as the Hub calls it: cc0-1.0, …")
    push: str = setting("", "huggingface: upload to this repository of the Hub, <user>/<name>, when all is written")
    private: bool = setting(True, "push: whether a repository that is made for it is private")


@dataclass(frozen=True)
class Layout:
    """A layout: what writes a piece, the keys that it depends on, and what is done when all pieces are there."""

    write: Callable[..., None]
    keys: tuple[str, ...] = ()
    files: bool = False  # a piece is a file of several scenes, not the folder of one
    only_data: bool = False
    finish: Callable[[Target, Dataset, Options], None] | None = None


LAYOUTS = {
    "paper": Layout(paper.write_scene, ("link", "pixel_centre"), only_data=True),
    "colmap": Layout(colmap.write_scene, ("link", "model")),
    "nerfstudio": Layout(nerfstudio.write_scene, ("link", "depth")),
    "webdataset": Layout(webdataset.write_shard, ("scenes_per_shard",), files=True),
    "wai": Layout(wai.write_scene, finish=lambda target, dataset, o: wai.write_lists(target, dataset, o.val_scenes)),
    "huggingface": Layout(
        huggingface.write_shard,
        ("scenes_per_shard", "val_scenes"),
        files=True,
        finish=lambda target, dataset, o: card.write_card(target, o.license),
    ),
}
LIMITED = {  # to these layouts; other keys serve all, or are left alone as they always were
    "link": ("paper", "colmap", "nerfstudio"),
    "pixel_centre": ("paper",),
    "val_scenes": ("wai", "huggingface"),
    "license": ("huggingface",),
    "push": ("huggingface",),
}
BASELINES = (1e-6, 1e6)  # of disparity=, in scene units: far from where 32 bits end
YOUNG = {"flow": False, "disparity": 0.0, "pixel_centre": 0.5}  # not in the records of exports that do not use them

HELP = Help(
    usage="python -m megasynth_attr.dataset.export format=<format> dataset=<dir> out=<dir> [scenes=0-9]",
    explanation="""
Writes a dataset in a layout that other programs read.
  paper        opencv_cameras.json, renderings/*_rgba.png, *_depth.exr: the layout of the paper's training code
  colmap       images and a sparse model (text and binary) with a point cloud and tracks
  nerfstudio   transforms.json, images, depth in thousandths of a scene unit
  webdataset   tar shards, one sample per view
  wai          scene_meta.json, images, depth, covisibility, scene lists: the format of MapAnything
  huggingface  Parquet files, a card (README.md) and Croissant metadata, for load_dataset and the Hub
A scene appears as a whole or not at all; running the same command again continues. `out` may hold several datasets
of one format; anything else in it is an error, and is left alone. Several machines share the work with shard=1/4 …
shard=4/4; then the command without shard= writes what is missing and the lists, the card, the upload.
""",
    examples=(
        "python -m megasynth_attr.dataset.export format=colmap dataset=runs/demo/texture_00 out=exports/colmap",
        "python -m megasynth_attr.dataset.export format=webdataset dataset=runs/demo/texture_00 out=tars scenes=0-9",
        "python -m megasynth_attr.dataset.export format=wai dataset=runs/demo/texture_00 out=wai flow=true shard=1/4",
    ),
)


def export_dataset(options: Options, progress: bool = True) -> None:
    """Export as ``options`` say; raises ConfigError, DatasetError or EnvironmentProblem if that is impossible."""
    layout, shard = _checked(options)
    dataset, out = open_dataset(options.dataset), Path(options.out)
    wanted = select_indices(options.scenes, dataset.scene_count, "scenes")
    chosen = wanted if isinstance(wanted, range) else set(wanted)
    there = (i for indices in paths.finished_by_thousand(dataset.path) for i in indices if i in chosen)
    ranges = as_ranges(there)
    if not ranges:
        none = f"scenes={options.scenes}: none of these scenes exists in {dataset.path}"
        raise ConfigError(f"{none}; {paths.RENDER_REST}")
    runs = [(int(first), int(last or first)) for first, _, last in (run.partition("-") for run in ranges.split(","))]
    count = sum(last - first + 1 for first, last in runs)
    if options.val_scenes > count:
        raise ConfigError(f"val_scenes={options.val_scenes}: only {count} scenes are exported")
    own = {key: getattr(options, key) for key in layout.keys if key != "link"}
    own |= {key: getattr(options, key) for key in YOUNG}
    identity = {key: value for key, value in own.items() if YOUNG.get(key) != value}
    if layout.files:
        identity["scenes"] = ranges  # what a file holds depends on the selection
    scenes = (SceneData(paths.scene_path(dataset.path, i)) for low, high in runs for i in range(low, high + 1))
    target = claim(out, dataset, options.format, identity, layout.only_data)
    if layout.files:
        pieces, total = _files(options, layout, dataset, scenes, count)
    else:
        pieces, total = _folders(options, layout, dataset, scenes), count
    target.fill(pieces, shard, total, dataset.name, progress)
    if shard[1] == 1 and layout.finish is not None:
        layout.finish(target, dataset, options)
    if options.push:
        push.send(out, options.push, options.private)


def _checked(options: Options) -> tuple[Layout, tuple[int, int]]:
    """Return the layout and the shard (index, count); ConfigError for what does not go together."""
    if options.format not in LAYOUTS:
        hint = nearest(options.format, list(LAYOUTS))
        raise ConfigError(f"format={options.format}: unknown format{hint}; known: {', '.join(LAYOUTS)}")
    for key, layouts in LIMITED.items():
        if getattr(options, key) != getattr(Options, key) and options.format not in layouts:
            raise ConfigError(f"{key}={getattr(options, key)}: format={options.format} has no such key; leave it out")
    if options.pixel_centre not in (0, 0.5):
        raise ConfigError(f"pixel_centre={options.pixel_centre}: write 0.5, as in the dataset, or 0")
    if options.disparity and not BASELINES[0] <= options.disparity <= BASELINES[1]:
        raise ConfigError(
            f"disparity={options.disparity:g}: write a baseline between {BASELINES[0]:g} and {BASELINES[1]:g} scene "
            "units, or 0 for none"
        )
    if options.format == "huggingface":
        huggingface.arrow()
    shard = parse_shard(options.shard)
    if options.push:
        if shard[1] > 1:
            raise ConfigError("push= sends a whole export: leave out shard=, which then also writes what is missing")
        push.check(options.push)
    return LAYOUTS[options.format], shard


def _folders(options: Options, layout: Layout, dataset: Dataset, scenes: Iterator[SceneData]) -> Iterator[Piece]:
    """Yield a folder per scene."""
    derived = Derived(options.flow, options.disparity)
    own: dict[str, Any] = {key: getattr(options, key) for key in layout.keys}
    if options.format == "wai":
        own["dataset"] = dataset

    def write(folder: Path, scene: SceneData) -> None:
        layout.write(folder, scene=scene, **own)
        if derived:
            derived.write(folder, scene.views)

    for scene in scenes:
        yield Piece(f"{dataset.name}/{scene.name}", [scene], partial(write, scene=scene))


def _files(
    options: Options, layout: Layout, dataset: Dataset, scenes: Iterator[SceneData], count: int
) -> tuple[Iterator[Piece], int]:
    """Return files of several scenes each, and how many: first those of the split train, then those of val."""
    size = options.scenes_per_shard
    splits = {"train": count - options.val_scenes, "val": options.val_scenes}
    names = f"{huggingface.DATA}/{dataset.name}/{{split}}-{{i:05d}}.parquet"
    if options.format == "webdataset":
        names = f"{dataset.name}-{{i:06d}}.tar"
    derived = Derived(options.flow, options.disparity)

    def pieces() -> Iterator[Piece]:
        for split, number in splits.items():
            for i, batch in enumerate(batches(islice(scenes, number), size)):
                write = partial(layout.write, dataset=dataset, scenes=batch, derived=derived)
                yield Piece(names.format(split=split, i=i), batch, write)

    return pieces(), sum(-(-number // size) for number in splits.values())


def main(words: list[str]) -> None:
    """Export as ``words`` say, or print the help."""
    options = parse(Options, words, HELP)
    export_dataset(options)
    print(f"exported to {options.out}")
    if parse_shard(options.shard)[1] > 1:
        print(f"this was shard {options.shard}; when all are done, run the command once more without shard=")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
