"""The reprojection test passes exact data of any shape and fails every wrong convention."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import raycast

from megasynth_attr.dataset.dataset_checks import (
    MAX_DEPTH_FACTOR,
    MAX_SHIFT_PX,
    Reprojection,
)
from megasynth_attr.dataset.findings import Finding, SceneFacts
from megasynth_attr.dataset.reprojection import (
    Surface,
    Systematic,
    choose_pairs,
    compare,
    pixel_rays,
    project,
    solve_systematic,
    world_points,
)

FOV_DEG = 60.0


class DepthView(NamedTuple):
    depth_z: np.ndarray
    intrinsics: np.ndarray
    camera_from_world: np.ndarray


Views = list[DepthView]


def intrinsics_of(size: int) -> np.ndarray:
    focal = size / 2 / np.tan(np.radians(FOV_DEG / 2))
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def exact_views(size: int, poses: list[np.ndarray], world: raycast.World | None = None) -> Views:
    matrix = intrinsics_of(size)
    return [
        DepthView(
            raycast.render(world or raycast.World(), matrix[0, 0], size, size, pose)["depth_z"],
            matrix,
            np.linalg.inv(pose),
        )
        for pose in poses
    ]


def judged(views: Views, pairs: int = 12) -> tuple[float | None, Systematic, list[Finding]]:
    surfaces = [Surface(*view) for view in views]
    chosen = choose_pairs(np.stack([v.camera_from_world for v in views]), pairs)
    results = tuple((a, b, compare(surfaces[a], surfaces[b])) for a, b in chosen)
    facts = SceneFacts("000000", frames=len(views), pairs=list(results))
    check = Reprojection()
    check.add(facts)
    return check.agreeing_share, check.systematic, [f for f in check.findings() if f.severity == "error"]


def clutter(seed: int) -> raycast.World:
    """Eighteen intersecting spheres and a thin wall: creases, silhouettes and narrow gaps everywhere."""
    rng = np.random.default_rng(seed)
    spheres = tuple((tuple(rng.uniform(-0.8, 0.8, 3) * [1, 1, 0.5]), rng.uniform(0.03, 0.4)) for _ in range(18))
    return raycast.World(spheres=spheres, box=((-0.7, -0.7, -0.6), (0.7, -0.68, 0.3)))


@pytest.mark.parametrize("size", [56, 140])
@pytest.mark.parametrize("world", [raycast.World(), clutter(0), clutter(1), clutter(2)])
def test_exact_depth_passes(size: int, world: raycast.World) -> None:
    share, systematic, errors = judged(exact_views(size, raycast.orbit(12), world))
    assert errors == []
    assert share is not None and share >= 0.999
    for shift in (systematic.shift_x_px, systematic.shift_y_px):
        assert shift is None or abs(shift) < 0.05
    assert systematic.depth_factor is None or abs(systematic.depth_factor - 1) < 3e-4


def test_half_precision_passes() -> None:
    views = exact_views(140, raycast.orbit(12))
    halved = [replaced(view, depth=view.depth_z.astype(np.float16).astype(np.float32)) for view in views]
    share, _, errors = judged(halved)
    assert errors == [] and share is not None and share > 0.999


def replaced(
    view: DepthView,
    depth: np.ndarray | None = None,
    intrinsics: np.ndarray | None = None,
    pose: np.ndarray | None = None,
) -> DepthView:
    return DepthView(
        view.depth_z if depth is None else depth,
        view.intrinsics if intrinsics is None else intrinsics,
        view.camera_from_world if pose is None else pose,
    )


def shifted(x: float, y: float) -> Callable[[DepthView], DepthView]:
    return lambda view: replaced(view, intrinsics=view.intrinsics + np.array([[0, 0, x], [0, 0, y], [0, 0, 0]]))


def scaled(factor: float) -> Callable[[DepthView], DepthView]:
    return lambda view: replaced(view, depth=view.depth_z * np.float32(factor))


def ray_length(view: DepthView) -> DepthView:
    height, width = view.depth_z.shape
    rays = np.linalg.norm(pixel_rays(height, width, view.intrinsics), axis=-1)
    return replaced(view, depth=(view.depth_z * rays).astype(np.float32))


WRONG: dict[str, Callable[[DepthView], DepthView]] = {
    "half a pixel in x and y": shifted(0.5, 0.5),
    "half a pixel in x": shifted(-0.5, 0),
    "half a pixel in y": shifted(0, 0.5),
    "depth 1 % too large": scaled(1.01),
    "depth 1 % too small": scaled(0.99),
    "ray length instead of z": ray_length,
    "mirrored images": lambda v: replaced(v, depth=v.depth_z[:, ::-1]),
    "OpenGL axes": lambda v: replaced(v, pose=np.diag([1.0, -1, -1, 1]) @ v.camera_from_world),
    "left-handed axes": lambda v: replaced(v, pose=np.diag([-1.0, 1, 1, 1]) @ v.camera_from_world),
    "inverted poses": lambda v: replaced(v, pose=np.linalg.inv(v.camera_from_world)),
    "transposed rotation": lambda v: replaced(v, pose=_transposed(v.camera_from_world)),
}


def _transposed(pose: np.ndarray) -> np.ndarray:
    other = pose.copy()
    other[:3, :3] = pose[:3, :3].T
    return other


@pytest.mark.parametrize("size", [56, 112])
@pytest.mark.parametrize("error", WRONG)
def test_wrong_conventions_fail(size: int, error: str) -> None:
    poses = raycast.orbit(12) + raycast.orbit(12, elevation=0.9)
    _, _, errors = judged([WRONG[error](view) for view in exact_views(size, poses)])
    assert errors != []


@pytest.mark.parametrize("size", [56, 140])
def test_size_of_the_error_is_told(size: int) -> None:
    views = exact_views(size, raycast.orbit(12))
    _, systematic, _ = judged([shifted(0.5, -0.25)(view) for view in views])
    assert systematic.shift_x_px == pytest.approx(0.5, abs=0.05)
    assert systematic.shift_y_px == pytest.approx(-0.25, abs=0.05)
    _, systematic, _ = judged([scaled(0.99)(view) for view in views])
    assert systematic.depth_factor == pytest.approx(0.99, abs=5e-4)
    assert MAX_SHIFT_PX > 0.05 and MAX_DEPTH_FACTOR > 5e-4


def test_a_single_wrong_pose_fails() -> None:
    views = exact_views(140, raycast.orbit(8))
    moved = views[2].camera_from_world.copy()
    moved[0, 3] += 0.05
    _, _, errors = judged([*views[:2], replaced(views[2], pose=moved), *views[3:]])
    assert errors and all("2" in error.where.split() for error in errors)


def test_tiny_baselines_pass_and_say_what_they_cannot_tell() -> None:
    start = raycast.orbit(8)[0]
    poses = []
    for offset in np.random.default_rng(0).uniform(-0.015, 0.015, (6, 3)):
        pose = start.copy()
        pose[:3, 3] += offset
        poses.append(pose)
    views = exact_views(112, poses)
    share, systematic, errors = judged(views)
    assert errors == [] and share is not None and share > 0.999
    assert systematic.shift_x_px is None  # views that do not turn cannot tell it from a shift of the world


def test_opposite_views_of_a_ball_have_nothing_in_common() -> None:
    world = raycast.World(spheres=(((0.0, 0, 0), 0.5),), floor=-9.0, half_floor=0.0, box=((9.0, 9, 9), (9.1, 9.1, 9.1)))
    poses = [raycast.look_at(np.array([x, 0, 0.1]), np.zeros(3)) for x in (-3.0, 3.0)]
    surfaces = [Surface(*view) for view in exact_views(140, poses, world)]
    assert compare(surfaces[0], surfaces[1]).covisible < 20


def test_sampling_is_exact_on_a_slanted_plane() -> None:
    """Bilinear interpolation of inverse depth has no error on planes; of depth, it would."""
    world = raycast.World(spheres=(), box=((9.0, 9, 9), (9.1, 9.1, 9.1)), half_floor=50.0)
    pose = raycast.look_at(np.array([0.0, -2, 0.4]), np.array([0.0, 1, -0.6]))
    view = exact_views(84, [pose], world)[0]
    pixels = np.random.default_rng(0).uniform(30, 80, (500, 2))
    depth, smooth, _, _ = Surface(*view).sample(pixels)
    rays = np.concatenate([pixels, np.ones((500, 1))], axis=1) @ np.linalg.inv(view.intrinsics).T @ pose[:3, :3].T
    exact = (world.floor - pose[2, 3]) / rays[:, 2]
    assert smooth.mean() > 0.9
    np.testing.assert_allclose(depth[smooth], exact[smooth], rtol=2e-6)


def test_projection_inverts_unprojection() -> None:
    view = exact_views(56, raycast.orbit(5))[3]
    points = world_points(view.depth_z, view.intrinsics, view.camera_from_world)
    rows, columns = np.nonzero(view.depth_z)
    pixels, z = project(points[rows, columns], view.intrinsics, view.camera_from_world)
    np.testing.assert_allclose(pixels, np.stack([columns + 0.5, rows + 0.5], 1), atol=1e-9)
    np.testing.assert_allclose(z, view.depth_z[rows, columns], rtol=1e-9)


def test_behind_the_camera_projects_nowhere() -> None:
    pixels, z = project(np.array([[0.0, 0, -1], [0, 0, 0]]), intrinsics_of(56), np.eye(4))
    assert np.isnan(pixels).all() and (z <= 0).all()


def test_no_pairs_no_verdict() -> None:
    assert choose_pairs(np.eye(4)[None], 8) == []
    assert solve_systematic([]) == Systematic(None, None, None)
