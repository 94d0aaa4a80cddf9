"""Depth, positions, normals, instance ids and projection against ray oracles in float64, on both Blenders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from analytic_scenes import LANDSCAPE, PORTRAIT, away_from_edges, hit_box, hit_sphere, pixel_rays
from blender_jobs import BOX_HIGH, BOX_LOW, CORNERS, GROUND, TILTED, VIEWS
from blender_runtime import Outcome

from megasynth_attr.scene.frame import camera_from_world, intrinsics

SIZES = {"box": LANDSCAPE, "box_portrait": PORTRAIT, "sphere": LANDSCAPE, "plane": LANDSCAPE}
CASES = [(name, frame) for name in SIZES for frame in range(2 if name == "plane" else 3)]


def oracle(name: str, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact (depth, outward normal) of a job's frame."""
    origin, rays = pixel_rays(TILTED if name == "plane" else VIEWS, frame, *SIZES[name])
    if name == "sphere":
        return hit_sphere(origin, rays, np.zeros(3), 0.5)
    if name == "plane":
        centre, size = (np.asarray(v) for v in GROUND)
        return hit_box(origin, rays, centre - size / 2, centre + size / 2)
    return hit_box(origin, rays, BOX_LOW, BOX_HIGH)


@pytest.mark.parametrize(("name", "frame"), CASES)
def test_depth_is_planar_at_the_pixel_centre(outcome: Outcome, name: str, frame: int) -> None:
    depth, normal = oracle(name, frame)
    rendered = outcome.frame(name, frame)["depth_z"]
    assert rendered.dtype == np.float32 and rendered.shape == SIZES[name][::-1]
    inner = away_from_edges(depth, normal)
    assert inner.mean() > 0.05
    assert np.abs(rendered[inner] / depth[inner] - 1).max() < (4e-5 if name == "sphere" else 1e-6)  # it has facets
    outside = ~(depth > 0)
    touched = np.pad(depth > 0, 1)  # a pixel beside the silhouette may fall on either side of a tessellated edge
    beside = touched[:-2, 1:-1] | touched[2:, 1:-1] | touched[1:-1, :-2] | touched[1:-1, 2:]
    assert np.all(rendered[outside & ~beside] == 0)


@pytest.mark.parametrize(("name", "frame"), CASES)
def test_normals_are_those_of_the_surface(outcome: Outcome, name: str, frame: int) -> None:
    depth, normal = oracle(name, frame)
    rendered = outcome.frame(name, frame)["normal"]
    inner = away_from_edges(depth, normal)
    cosine = (rendered[inner] * normal[inner]).sum(-1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.1
    hit = outcome.frame(name, frame)["depth_z"] > 0
    assert np.abs(np.linalg.norm(rendered[hit], axis=-1) - 1).max() < 1e-5
    assert np.all(rendered[~hit] == 0)
    _, rays = pixel_rays(TILTED if name == "plane" else VIEWS, frame, *SIZES[name])
    assert (rendered * rays).sum(-1).max() < 1e-5, "a normal looks away from the camera"


@pytest.mark.parametrize(("name", "frame"), CASES)
def test_positions_reproject_to_their_pixel_centres(outcome: Outcome, name: str, frame: int) -> None:
    view = TILTED if name == "plane" else VIEWS
    arrays = outcome.frame(name, frame)
    hit = arrays["depth_z"] > 0
    extrinsics = camera_from_world(view)[frame]
    in_camera = arrays["position"][hit].astype(np.float64) @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    projected = in_camera @ intrinsics(view.fov_x_deg, *SIZES[name]).T
    v, u = np.nonzero(hit)
    error = projected[:, :2] / projected[:, 2:] - np.stack([u + 0.5, v + 0.5], axis=-1)
    assert np.abs(error).max() < 0.01
    assert np.abs(in_camera[:, 2] / arrays["depth_z"][hit] - 1).max() < 1e-5
    assert np.all(arrays["position"][~hit] == 0)


@pytest.mark.parametrize("name", ["box", "box_portrait"])
def test_box_corners_project_where_blender_sees_them(outcome: Outcome, name: str) -> None:
    """Blender's own world_to_camera_view is the oracle: shares of the picture, y upwards, depth along the axis."""
    width, height = SIZES[name]
    seen = np.array(outcome.results["jobs"][name]["projected"])
    for frame, extrinsics in enumerate(camera_from_world(VIEWS)):
        in_camera = np.array(CORNERS) @ extrinsics[:3, :3].T + extrinsics[:3, 3]
        ours = in_camera @ intrinsics(VIEWS.fov_x_deg, width, height).T
        blender = np.stack([seen[frame, :, 0] * width, (1 - seen[frame, :, 1]) * height], axis=-1)
        assert np.abs(ours[:, :2] / ours[:, 2:] - blender).max() < 0.01
        assert np.abs(in_camera[:, 2] - seen[frame, :, 2]).max() < 1e-5


def test_instance_ids_number_the_primitives(outcome: Outcome) -> None:
    ids = outcome.frame("many")["instance"]
    assert ids.dtype == np.uint16 and set(np.unique(ids)) == set(range(301))
    rows = [np.unique(ids[:, 100:110])[1:]]
    assert ids[ids > 0][0] > 280 and ids[ids > 0][-1] <= 20, "box 0 is at the bottom left of this view from above"
    centres = [(0.1 * (i % 20) - 0.95, 0.1 * (i // 20) - 0.7, 0.025) for i in range(300)]
    scale = 100 / np.tan(np.radians(15)) / (4.0 - 0.025)
    for index, (x, y, _) in enumerate(centres):
        assert ids[int(75 - scale * y), int(100 + scale * x)] == index + 1, rows


def test_alpha_is_coverage_and_background_is_black(outcome: Outcome) -> None:
    arrays = outcome.frame("plain")
    rgba, depth = arrays["rgba"], arrays["depth_z"]
    assert rgba.dtype == np.uint8 and rgba.shape == (98, 140, 4)
    assert np.all(rgba[rgba[..., 3] == 0] == 0)
    inner, covered = away_from_edges(depth, arrays["normal"]), rgba[..., 3] > 0
    assert np.all(rgba[inner, 3] == 255)
    assert covered[depth > 0].mean() > 0.99 and 0.05 < covered.mean() < 0.5


def test_only_what_was_asked_for_comes_back(outcome: Outcome) -> None:
    assert set(outcome.frame("box_colour_only")) == {"rgba", "depth_z"}
    assert set(outcome.frame("box")) == {"rgba", "depth_z", "normal", "instance", "position"}
    assert np.array_equal(outcome.frame("box_colour_only")["depth_z"], outcome.frame("box")["depth_z"])
    assert np.array_equal(outcome.frame("box_colour_only")["rgba"], outcome.frame("box")["rgba"])


@pytest.mark.parametrize(("name", "frame"), CASES)
def test_blenders_agree(both: tuple[Outcome, Outcome], name: str, frame: int) -> None:
    first, second = (o.frame(name, frame) for o in both)
    hit = (first["depth_z"] > 0) & (second["depth_z"] > 0)
    assert ((first["depth_z"] > 0) != (second["depth_z"] > 0)).sum() <= 2, "a ray may graze a silhouette"
    inner = hit & away_from_edges(*oracle(name, frame))
    assert np.abs(first["depth_z"][inner] / second["depth_z"][inner] - 1).max() < 2e-6
    assert np.array_equal(first["instance"][inner], second["instance"][inner])
    assert np.abs(first["normal"][inner] - second["normal"][inner]).max() < 2e-4, "3.4 stores normals in 16 bits"


def test_pictures_of_the_two_new_blenders_are_alike(sessions: Any) -> None:
    """Equal conditions and denoiser: what differs is the version."""
    first, second = sessions.outcome("module"), sessions.outcome("newest")
    for name in ("default_quality", "plain", "glass", "leans_up_lit_right"):
        one, other = (outcome.frame(name)["rgba"].astype(float) for outcome in (first, second))
        assert 10 * np.log10(255**2 / max(((one - other) ** 2).mean(), 1e-9)) > 40, name
