"""All pictures of one dataset, written into its report folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megasynth_attr.core.pages.clouds import Cloud
from megasynth_attr.core.pages.figures import evenly
from megasynth_attr.dataset.reader import Dataset, SceneData
from megasynth_attr.dataset.space import is_closed, joined, view_points
from megasynth_attr.report.animation import write_gif
from megasynth_attr.report.facts import Facts
from megasynth_attr.report.figures import Trajectory, save_depth, save_trajectory
from megasynth_attr.report.images import (
    contact_sheet,
    instance_colour,
    normal_colour,
    on_paper,
    plan_sheet,
    resized,
    save_jpeg,
    save_png,
    strip,
)

CLOUD_VIEWS = 10
CLOUD_POINTS = 24_000
GIF_FRAMES = 48
COVER_SCENES = 4
STRIP_WIDTH = 192
STEPS = 5  # ticks of the progress bar per dataset


@dataclass(frozen=True)
class Limits:
    """How much of a large dataset is shown; scenes and frames are spread evenly over it."""

    sheet_scenes: int = 60
    grid_scenes: int = 8
    grid_frames: int = 12
    hash_scenes: int = 60


@dataclass(frozen=True)
class Strip:
    """One scene's frames side by side in one picture file."""

    scene: str
    file: str


@dataclass(frozen=True)
class Panel:
    """One picture of the example view: its file, name and caption."""

    file: str
    name: str
    caption: str


@dataclass(frozen=True)
class Pictures:
    """What was drawn: file names relative to the report folder, and what is needed to caption them."""

    example: str  # the scene shown in detail
    frame_size: tuple[int, int]  # width, height in pixels
    sheet_scenes: tuple[str, ...]
    strips: tuple[Strip, ...]
    strip_frames: tuple[int, ...]
    trajectory_frames: tuple[int, ...]
    panels: tuple[Panel, ...]
    gif_frames: int
    fov_x_deg: tuple[float, float]  # smallest and largest among the scenes shown
    camera_distance: tuple[float, float]  # from the world origin, in the example scene


def draw_dataset(dataset: Dataset, facts: Facts, folder: Path, limits: Limits, tick: Callable[[], object]) -> Pictures:
    """Write every picture of ``dataset`` into ``folder`` and return what was drawn. ``tick`` is called 5 times.

    Needs at least one complete scene.
    """
    scenes = list(dataset.scenes)
    example = scenes[0]
    first = on_paper(example.views[0].image)
    height, width = first.shape[:2]
    sheet_scenes = [scenes[i] for i in evenly(len(scenes), limits.sheet_scenes)]
    fovs = _draw_sheet(folder, sheet_scenes, width / height)
    tick()
    strips, strip_frames = _draw_strips(folder, scenes, limits, width / height)
    tick()
    trajectory_frames = _draw_frames(folder, example, width / height)
    panels = _draw_view(folder, example)
    tick()
    trajectory = Trajectory(example.intrinsics, example.camera_from_world, width, height)
    save_trajectory(folder / "trajectory.png", trajectory, example_cloud(example))
    tick()
    shown = evenly(len(example.views), GIF_FRAMES)
    frames = [on_paper(example.views[i].image) for i in shown]
    gif_frames = write_gif(folder / "trajectory.gif", frames, there_and_back=not is_closed(trajectory.centres))
    tick()
    distances = np.linalg.norm(trajectory.centres, axis=1)
    return Pictures(
        example=example.name,
        frame_size=(width, height),
        sheet_scenes=tuple(s.name for s in sheet_scenes),
        strips=tuple(strips),
        strip_frames=tuple(strip_frames),
        trajectory_frames=tuple(trajectory_frames),
        panels=tuple(panels),
        gif_frames=gif_frames,
        fov_x_deg=(min(fovs), max(fovs)),
        camera_distance=(float(distances.min()), float(distances.max())),
    )


def example_cloud(scene: SceneData) -> Cloud:
    """Return points of the scene seen by 10 views spread over its trajectory, with their colours."""
    indices = evenly(len(scene.views), CLOUD_VIEWS)
    share = CLOUD_POINTS // len(indices)
    clouds = []
    for view in (scene.views[i] for i in indices):
        clouds.append(view_points(view.depth_z, on_paper(view.image), view.intrinsics, view.camera_from_world, share))
    return joined(clouds)


def _draw_sheet(folder: Path, scenes: Sequence[SceneData], aspect: float) -> list[float]:
    """Write the contact sheet and the cover; return the horizontal field of view of each scene in degrees."""
    sheet = plan_sheet(len(scenes), aspect, columns=6)
    pictures = []
    fovs = []
    for scene in scenes:
        pictures.append(resized(on_paper(scene.views[0].image), sheet.cell_width, sheet.cell_height))
        fovs.append(float(np.degrees(2 * np.arctan(scene.intrinsics[0, 2] / scene.intrinsics[0, 0]))))
    save_png(folder / "contact_sheet.png", contact_sheet(pictures, [s.name for s in scenes], sheet))
    chosen = [pictures[i] for i in evenly(len(pictures), COVER_SCENES)]
    cover = dataclasses.replace(sheet, columns=COVER_SCENES, rows=1, label_height=0)
    save_jpeg(folder / "cover.jpg", contact_sheet(chosen, [""] * len(chosen), cover))
    return fovs


def _draw_strips(
    folder: Path, scenes: Sequence[SceneData], limits: Limits, aspect: float
) -> tuple[list[Strip], list[int]]:
    """Write one strip per scene, all at the same frame indices; return the strips and those indices."""
    frames = evenly(len(scenes[0].views), limits.grid_frames)
    strips = []
    for scene in (scenes[i] for i in evenly(len(scenes), limits.grid_scenes)):
        pictures = [on_paper(scene.views[i].image) for i in frames]
        file = f"frames_{scene.name}.jpg"
        save_jpeg(folder / file, strip(pictures, STRIP_WIDTH, max(1, round(STRIP_WIDTH / aspect))))
        strips.append(Strip(scene.name, file))
    return strips, frames


def _draw_frames(folder: Path, scene: SceneData, aspect: float) -> list[int]:
    """Write the strip of one trajectory, with frame numbers; return the frames shown."""
    frames = evenly(len(scene.views), 12)
    sheet = plan_sheet(len(frames), aspect, columns=6)
    pictures = [on_paper(scene.views[i].image) for i in frames]
    save_png(folder / "trajectory_strip.png", contact_sheet(pictures, [f"frame {i}" for i in frames], sheet))
    return frames


def _draw_view(folder: Path, scene: SceneData) -> list[Panel]:
    """Write everything stored for the scene's first view, one picture per quantity."""
    view = scene.views[0]
    save_png(folder / "view_rgb.png", on_paper(view.image))
    save_depth(folder / "view_depth.png", view.depth_z)
    hit = view.depth_z > 0
    seen = f"surfaces in {hit.mean():.0%} of the pixels"
    span = f", {view.depth_z[hit].min():.2f} to {view.depth_z[hit].max():.2f} scene units away" if hit.any() else ""
    panels = [
        Panel("view_rgb.png", "RGB", "8-bit sRGB; the background is transparent in the file"),
        Panel("view_depth.png", "Depth", f"{seen}{span}"),
    ]
    if view.normal is not None:
        save_png(folder / "view_normal.png", normal_colour(view.normal))
        panels.append(Panel("view_normal.png", "Normals", "world space; red, green, blue = (n + 1) / 2 of x, y, z"))
    if view.instance is not None:
        save_png(folder / "view_instance.png", instance_colour(view.instance))
        count = len(np.unique(view.instance[view.instance > 0]))
        panels.append(Panel("view_instance.png", "Instances", f"{count} primitives in view, one colour each"))
    return panels
