"""``python -m megasynth_attr.dataset.export format=colmap dataset=<dir> out=<dir>``"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, run_main
from megasynth_attr.core.fields import REQUIRED, setting
from megasynth_attr.core.selection import parse_indices
from megasynth_attr.dataset.export import colmap, nerfstudio, paper, webdataset
from megasynth_attr.dataset.export.target import claim, new_piece
from megasynth_attr.dataset.paths import RENDER_REST
from megasynth_attr.dataset.reader import open_dataset


@dataclass(frozen=True)
class Options:
    """The keys of the command."""

    format: str = setting(REQUIRED, "layout to write: paper, colmap, nerfstudio, webdataset")
    dataset: str = setting(REQUIRED, "a dataset folder such as runs/demo/texture_00")
    out: str = setting(REQUIRED, "folder to write to; new, empty, or an earlier export of the same format")
    scenes: str = setting("all", "which scenes: all, 0-9, 0,3,7")
    link: bool = setting(False, "hard-link images instead of copying them (not webdataset)")
    model: str = setting("both", "colmap: kind of model files", options=["both", "text", "binary"])
    depth: str = setting("png", "nerfstudio: depth file type; png rounds to 0.001 units", options=["png", "npy"])
    scenes_per_shard: int = setting(10, "webdataset: scenes in one tar file", minimum=1)


WRITERS: dict[str, Callable[..., None]] = {
    "paper": paper.write_scene,
    "colmap": colmap.write_scene,
    "nerfstudio": nerfstudio.write_scene,
    "webdataset": webdataset.write_shard,
}
OWN_OPTIONS = {"paper": (), "colmap": ("model",), "nerfstudio": ("depth",), "webdataset": ("scenes_per_shard",)}

HELP = Help(
    usage="python -m megasynth_attr.dataset.export format=<format> dataset=<dir> out=<dir> [scenes=0-9]",
    explanation="""
Writes a dataset in a layout that other programs read.
  paper       opencv_cameras.json, renderings/*_rgba.png, *_depth.exr: the layout of the paper's training code
  colmap      images and a sparse model (text and binary) with a point cloud and tracks
  nerfstudio  transforms.json, images, depth in thousandths of a scene unit
  webdataset  tar shards, one sample per view
A scene appears as a whole or not at all; running the same command again continues. `out` may hold several datasets
of one format; anything else in it is an error, and is left alone.
""",
    examples=(
        "python -m megasynth_attr.dataset.export format=colmap dataset=runs/demo/texture_00 out=exports/colmap",
        "python -m megasynth_attr.dataset.export format=webdataset dataset=runs/demo/texture_00 out=tars scenes=0-9",
    ),
)


def export_dataset(options: Options, progress: bool = True) -> None:
    """Export as ``options`` say; raises ConfigError, DatasetError or EnvironmentProblem if that is impossible."""
    if options.format not in WRITERS:
        hint = nearest(options.format, list(WRITERS))
        raise ConfigError(f"format={options.format}: unknown format{hint}; known: {', '.join(WRITERS)}")
    dataset, out = open_dataset(options.dataset), Path(options.out)
    selected = set(parse_indices(options.scenes, dataset.scene_count, "scenes"))
    scenes = [scene for scene in dataset.scenes if scene.index in selected]
    if not scenes:
        raise ConfigError(f"scenes={options.scenes}: none of these scenes exists in {dataset.path}; {RENDER_REST}")
    own: dict[str, Any] = {name: getattr(options, name) for name in OWN_OPTIONS[options.format]}
    write = WRITERS[options.format]
    pieces: dict[str, Callable[[Path], None]]
    if options.format == "webdataset":
        size = options.scenes_per_shard
        own["scenes"] = [scene.index for scene in scenes]  # what a shard holds depends on the selection
        shards = [scenes[i : i + size] for i in range(0, len(scenes), size)]
        pieces = {
            f"{dataset.name}-{i:06d}.tar": partial(write, dataset=dataset, scenes=shard)
            for i, shard in enumerate(shards)
        }
    else:
        shards = [[scene] for scene in scenes]
        pieces = {
            f"{dataset.name}/{scene.name}": partial(write, scene=scene, link=options.link, **own) for scene in scenes
        }
    claim(out, dataset, options.format, own)
    unit = "shard" if options.format == "webdataset" else "scene"
    todo = tqdm(pieces.items(), desc=f"export {dataset.name}", unit=unit, disable=not progress)
    for (name, write_piece), shard in zip(todo, shards, strict=True):
        if not (out / name).exists():
            for scene in shard:
                scene.require_intact()
            with new_piece(out, name) as path:
                write_piece(path)


def main(words: list[str]) -> None:
    """Export as ``words`` say, or print the help."""
    options = parse(Options, words, HELP)
    export_dataset(options)
    print(f"exported to {options.out}")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
