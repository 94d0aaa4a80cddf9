"""``python -m megasynth_train.inspect``: what a folder of pictures, depth and cameras holds, before it is trained on.

Prints ten lines and draws one picture: two neighbouring views, the depth of the first, and the second as seen from the
first. Where cameras and depth agree, the last shows the same as the first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, DatasetError, run_main
from megasynth_attr.core.fields import setting, shared_values
from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.pages import figures as plots
from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_attr.core.pages.words import count_text, listed, short
from megasynth_attr.core.temporary import written_beside
from megasynth_train.data.agreement import (
    LEAST_OVERLAP,
    Agreement,
    Doubt,
    agreement,
    doubt,
    pairs_of,
    reach_of,
    sample_frames,
    warp,
)  # fmt: skip
from megasynth_train.data.frames import FrameArrays
from megasynth_train.data.scene import BadScene, TrainingScene, left_out
from megasynth_train.data.sources import open_source
from megasynth_train.training.settings import (
    DataSettings,
    depth_unit_setting,
    format_setting,
    scaled_rotation_setting,
)  # fmt: skip

_SCENES, _VIEWS = 8, 3  # that are looked at closely: at most so many scenes; views in each, and their neighbours
_TILE, _GAP, _ROOM = 3.4, 0.12, 0.24  # a picture, the space between two, the line above one (inches)
_UNSEEN = 214  # grey
_MOST_DEPTHS = 100_000  # values of a scene that the range is taken from

HELP = Help(
    usage="python -m megasynth_train.inspect data=FOLDER [key=value ...]",
    explanation=(
        "Says what a folder of pictures, depth and cameras holds: layout, scenes, views, sizes, fields of view,\n"
        "depth, how well neighbouring views agree, and what is left out. Draws two neighbouring views, depth, and\n"
        "one view seen from the other, so that a wrong axis shows. Exit code 2 if they contradict each other."
    ),
    examples=(
        "python -m megasynth_train.inspect data=my_scans",
        "python -m megasynth_train.inspect data=my_scans format=colmap depth_unit=0.001 picture=runs/my_scans.png",
    ),
)


@dataclass(frozen=True)
class InspectSettings:
    """What is looked at, and where the picture goes."""

    data: str = setting("", "folder: a dataset, an experiment, or scenes in another layout (docs/own-data.md)")
    format: str = format_setting()
    depth_unit: float = depth_unit_setting()
    scaled_rotation: bool = scaled_rotation_setting()
    scenes: str = setting("all", "scenes by number: all, 0-9, 0,3,7")
    picture: str = setting("inspect.png", "the picture; an older one is replaced. Empty: none")
    progress: bool = setting(True, "progress bar")


@dataclass(frozen=True)
class Looked:
    """What was found in some scenes: a sample of valid depth, the valid share of all pixels, and how pairs agree.

    ``found``: the first doubt, a certain one if there is any.
    """

    scenes: int
    depth_z: np.ndarray
    valid: float
    pairs: tuple[tuple[FrameArrays, FrameArrays], ...]
    now: Agreement
    found: Doubt | None


def run(settings: InspectSettings) -> tuple[list[str], Doubt | None]:
    """Return the lines to print and what speaks against the data; the picture is written.

    ConfigError or DatasetError if there is nothing to look at, EnvironmentProblem without what is needed to draw.
    """
    if not settings.data:
        raise ConfigError("data= is missing: name a folder, e.g. data=runs/demo/texture_00")
    if settings.picture:
        if Path(settings.picture).suffix.lower() != ".png":
            raise ConfigError(f"picture={settings.picture}: the picture is a PNG; end the name in .png")
        require_report_libraries("matplotlib", what="the picture", otherwise=", or use picture=")
    source = open_source(Path(settings.data).resolve(), data_settings(settings), needs_depth=False)
    scenes: list[TrainingScene] = []
    bad: list[BadScene] = []
    for name, read in tqdm(source.named, desc="read cameras", unit="scene", disable=not settings.progress):
        try:
            scenes.append(read())
        except DatasetError as error:
            bad.append(BadScene(name, str(error)))
    if not scenes:
        raise DatasetError(f"none of the {count_text(len(bad), 'scene')} can be read; {bad[0].reason}")
    chosen = [scenes[i] for i in plots.evenly(len(scenes), _SCENES)]
    looked = look(chosen, settings.progress)
    lines = report(source.title, scenes, looked, [*source.notes, *left_out(scenes), *_unreadable(bad)])
    if settings.picture and looked.pairs:
        path = Path(settings.picture).absolute()
        with storage_errors("the picture", path), written_beside(path, "inspect") as file:
            draw(file, *looked.pairs[0])
        lines.append(_line("picture", settings.picture))
    return lines, looked.found


def data_settings(settings: InspectSettings) -> DataSettings:
    """Return how the folder is read, as a training run would say it."""
    return DataSettings(sources=(settings.data,), **shared_values(DataSettings, settings))


def look(scenes: Sequence[TrainingScene], progress: bool) -> Looked:
    """Return what these scenes' neighbouring views hold; DatasetError for a damaged file."""
    depths, shares, doubts = [], [], []
    pairs: list[tuple[FrameArrays, FrameArrays]] = []
    for scene in tqdm(scenes, desc="read views", unit="scene", disable=not progress):
        frames = sample_frames(scene, _VIEWS)
        of_scene = pairs_of(frames)
        pairs += of_scene
        known = np.concatenate([frame.depth_z[frame.depth_z > 0] for frame in frames])
        depths.append(known[:: max(1, len(known) // _MOST_DEPTHS)])
        shares.append(len(known) / sum(frame.depth_z.size for frame in frames))
        poses = np.array([view.camera_from_world for view in scene.stored_views()])
        if len(known):
            doubts.append(doubt(frames, agreement(of_scene), scene.depth_unit, reach_of(known, poses)))
        elif scene.has_depth:
            doubts.append(Doubt(f"none of the views looked at in {scene.name} has a pixel of valid depth"))
    found = max((one for one in doubts if one), key=lambda one: one.certain, default=None)
    return Looked(len(scenes), np.concatenate(depths), float(np.mean(shares)), tuple(pairs), agreement(pairs), found)


def report(title: str, scenes: Sequence[TrainingScene], looked: Looked, missing: Sequence[str]) -> list[str]:
    """Return the lines about a folder but that of the picture."""
    counts = [scene.view_count for scene in scenes]
    views = [view for scene in scenes for view in scene.stored_views()[:1]]
    sizes = sorted({scene.image_size_hw for scene in scenes})
    fov = np.degrees([[2 * np.arctan(v.image_size_hw[1 - i] / 2 / v.intrinsics[i, i]) for i in (0, 1)] for v in views])
    closely = f"in {looked.scenes} of them" if looked.scenes < len(scenes) else "in all scenes"
    fewest, most = min(counts), max(counts)
    per_scene = f"{most} in each scene" if fewest == most else f"{fewest} to {most} in a scene"
    unit = scenes[0].depth_unit
    if not any(scene.has_depth for scene in scenes):
        depth = "none; python -m megasynth_train.predict can use this folder, training and evaluation cannot"
    elif len(looked.depth_z) == 0:
        depth = "no pixel has a valid one"
    else:
        low, middle, high = (short(float(v)) for v in np.percentile(looked.depth_z, (1, 50, 99)))
        depth = f"{low} to {high} scene units, median {middle}"
        depth += f" (files: in {unit:g})" if unit else ""
    now, pairs = looked.now, count_text(len(looked.pairs), "pair")
    if len(looked.depth_z) == 0:
        error = "unknown without depth"
    elif now.overlap >= LEAST_OVERLAP:
        shared = f"{100 * now.overlap:.0f} % of the pixels shared"
        error = f"{now.error_px:.2f} px and {100 * now.depth_error:.2f} % of depth between neighbouring views"
        error += f" (median of {pairs}, {shared})"
    else:
        error = f"unknown: neighbouring views share less than {100 * LEAST_OVERLAP:.0f} % of their pixels ({pairs})"
    return [
        _line("layout", title),
        _line("scenes", f"{len(scenes)}: {listed(scene.name for scene in scenes)}"),
        _line("views", f"{sum(counts)}, {per_scene}"),
        _line("size", ", ".join(f"{width}×{height} px" for height, width in sizes[:4]) + " …" * (len(sizes) > 4)),
        _line("field of view", f"{_range(fov[:, 0])} wide, {_range(fov[:, 1])} high"),
        _line("depth", depth),
        _line("valid depth", f"{100 * looked.valid:.1f} % of the pixels, {closely}"),
        _line("reprojection", error),
        _line("left out", "; ".join(missing) or "nothing"),
        _line("verdict", looked.found.words if looked.found else _fine(looked)),
    ]


def _fine(looked: Looked) -> str:
    if looked.now.is_good:
        return "cameras and depth agree"
    compared = "" if np.isfinite(looked.now.error_px) else ", but nothing could be compared"
    return f"nothing speaks against cameras and depth{compared}"


def _line(name: str, text: str) -> str:
    return f"{name:<15}{text}"


def _range(degrees: np.ndarray) -> str:
    low, high = f"{degrees.min():.1f}", f"{degrees.max():.1f}"
    return f"{low}°" if low == high else f"{low}° to {high}°"


def _unreadable(bad: Sequence[BadScene]) -> list[str]:
    return [f"{count_text(len(bad), 'scene')} cannot be read, first {one.reason}" for one in bad[:1]]


@plots.figure_style()
def draw(path: Path, a: FrameArrays, b: FrameArrays) -> None:
    """Write the PNG of two views: both pictures, the depth of the first, and the second as seen from the first."""
    height, width = a.depth_z.shape
    tall = _TILE * height / width
    valid = a.depth_z > 0
    low, high = np.percentile(a.depth_z[valid], (1, 99)) if valid.any() else (0, 1)
    seen, known = warp(a, b)
    tiles = (
        ("a view", a.rgb),
        ("its neighbour", b.rgb),
        (f"depth of the view, {short(float(low))} (bright) to {short(float(high))}",
         plots.false_colour(a.depth_z, low, high, valid)),
        ("the neighbour from the view's place (grey: unseen)",
         np.where(known[..., None], seen, np.uint8(_UNSEEN))),
    )  # fmt: skip
    figure = plots.new_figure(2 * _TILE + 3 * _GAP, 2 * (tall + _ROOM) + 2 * _GAP)
    for i, (words, pixels) in enumerate(tiles):
        left, top = _GAP + i % 2 * (_TILE + _GAP), _ROOM + i // 2 * (tall + _ROOM + _GAP)
        plots.write(figure, left, top - 0.06, words, fontsize=7.5, color=plots.MUTED)
        plots.show_pixels(plots.place(figure, left, top, _TILE, tall), pixels)
    plots.save_png(figure, path)


def main(words: list[str]) -> None:
    """Inspect as the command line says and print what was found; DatasetError at the end if it contradicts itself."""
    settings = parse(InspectSettings, words, HELP)
    lines, found = run(settings)
    print("\n".join(lines), flush=True)
    if found is not None and found.certain:
        raise DatasetError(f"{settings.data}: {found.words}")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
