"""Covisibility, flow and disparity against analytic answers, a slow calculation and the ray-cast world itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import raycast
import synthetic

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.dataset.export import derived
from megasynth_attr.dataset.export.__main__ import Options, export_dataset
from megasynth_attr.dataset.export.derived import Derived, covisibility, flow, stereo_disparity
from megasynth_attr.dataset.images import read_exr, read_image
from megasynth_attr.dataset.reader import SceneData, View, open_dataset

FOCAL, WIDTH, HEIGHT = 80.0, 64, 48
INTRINSICS = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])


@dataclass(frozen=True)
class Frontal:
    """A view along +z from (x, y, 0) of the plane z = ``distance``, as far as it is wide."""

    x: float
    distance: float = 2.0
    y: float = 0.0

    @property
    def intrinsics(self) -> np.ndarray:
        return INTRINSICS

    @property
    def camera_from_world(self) -> np.ndarray:
        pose = np.eye(4)
        pose[:2, 3] = -self.x, -self.y
        return pose

    @property
    def depth_z(self) -> np.ndarray:
        return np.full((HEIGHT, WIDTH), self.distance, np.float32)


def scene_of(pristine: Path) -> SceneData:
    return open_dataset(pristine).scenes[0]


class TestPlane:
    """A camera that moves by b in front of a plane at z: everything moves by −f·b/z pixels, exactly."""

    def test_flow_is_constant(self) -> None:
        here, there = Frontal(0), Frontal(0.25, y=-0.1)
        moved, occluded = flow(here, here.depth_z, there, there.depth_z)
        np.testing.assert_allclose(moved[..., 0], -FOCAL * 0.25 / 2, atol=1e-4)
        np.testing.assert_allclose(moved[..., 1], FOCAL * 0.1 / 2, atol=1e-4)
        leaving = (np.arange(WIDTH) + 0.5 < 10)[None] | (np.arange(HEIGHT) + 0.5 >= HEIGHT - 4)[:, None]
        np.testing.assert_array_equal(occluded == 255, leaving)
        assert set(np.unique(occluded)) == {0, 255}

    def test_covisibility_is_the_overlap(self) -> None:
        views = [Frontal(0), Frontal(0.25), Frontal(0.5), Frontal(5)]
        shift = FOCAL * 0.25 / 2  # 10 of 64 columns
        expected = [1, 1 - shift / WIDTH, 1 - 2 * shift / WIDTH, 0]
        np.testing.assert_allclose(covisibility(views)[0], expected, atol=1e-6)

    def test_one_percent_decides(self) -> None:
        assert covisibility([Frontal(0), Frontal(0, 2.019)])[0, 1] == 1
        assert covisibility([Frontal(0), Frontal(0, 2.021)])[0, 1] == 0
        assert covisibility([Frontal(0), Frontal(0, 1.979)])[0, 1] == 0

    def test_disparity_is_minus_the_flow_to_the_right_camera(self) -> None:
        here, right = Frontal(0), Frontal(0.3)
        moved, _ = flow(here, here.depth_z, right, right.depth_z)
        np.testing.assert_allclose(stereo_disparity(here.depth_z, FOCAL, 0.3), -moved[..., 0], atol=1e-4)

    def test_a_steep_plane_does_not_hide_itself(self) -> None:
        """Depth grows by more than 1 % from pixel to pixel, inverse depth linearly; the second camera is nearer."""
        columns = np.arange(WIDTH) + 0.5
        views = []
        for back in (0.0, 0.02):  # n·X = 0.3 with n across the view: z = 0.3 / (n·ray), seen from z = back
            across = 0.05 + 0.9 * (columns - WIDTH / 2) / FOCAL
            depth = np.where(across > 0, (0.3 - 0.05 * back) / np.where(across > 0, across, 1), 0)
            pose = np.eye(4)
            pose[2, 3] = -back
            views.append((np.broadcast_to(depth, (HEIGHT, WIDTH)).astype(np.float32), pose))
        (depth_a, pose_a), (depth_b, pose_b) = views
        assert np.abs(np.diff(depth_a[0, 34:50])).max() > 0.05 * depth_a[0, 50]
        points = derived.world_points(depth_a, INTRINSICS, pose_a).reshape(-1, 3)
        pixels, seen = derived.find(points, depth_b, INTRINSICS, pose_b)
        inside = ((pixels >= 1) & (pixels < (WIDTH - 1, HEIGHT - 1))).all(axis=1)
        assert inside.sum() > 900 and seen[inside].all()


class TestRaycastWorld:
    def test_covisibility_is_what_rays_find(self, pristine: Path) -> None:
        views = scene_of(pristine).views
        shares = covisibility(views)
        assert shares.dtype == np.float32 and shares.shape == (6, 6)
        np.testing.assert_array_equal(np.diag(shares), 1)
        for i, j in ((0, 1), (1, 0), (0, 2), (2, 5), (4, 3)):
            points = views[i].points_world().reshape(-1, 3)
            points = points[np.isfinite(points[:, 0])]
            place = np.linalg.inv(views[j].camera_from_world)[:3, 3]
            seen = raycast.cast(synthetic.WORLD, place, points - place).distance > 1 - 1e-4
            pixels, _ = derived.project(points, views[j].intrinsics, views[j].camera_from_world)
            seen &= ((pixels >= 0) & (pixels < (70, 56))).all(axis=1)
            assert shares[i, j] == pytest.approx(seen.mean(), abs=0.02)
        assert 0.2 < shares[0, 1] < 0.95

    def test_a_grid_of_pixels_is_near_all_of_them(self, pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        views = scene_of(pristine).views
        exact = covisibility(views)
        monkeypatch.setattr(derived, "COVISIBILITY_PIXELS", 400)
        assert np.abs(covisibility(views) - exact).max() < 0.05

    def test_nothing_seen_is_zero(self, pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        views = scene_of(pristine).views[:2]
        monkeypatch.setattr(View, "depth_z", property(lambda view: np.zeros((56, 70), np.float32)))
        np.testing.assert_array_equal(covisibility(views), 0)

    def test_occlusion_is_what_rays_find(self, pristine: Path) -> None:
        """From each surface point towards the other camera: does a ray meet anything before? Silhouettes excepted."""
        a, b = scene_of(pristine).views[:2]
        _, occluded = flow(a, a.depth_z, b, b.depth_z)
        points = a.points_world().reshape(-1, 3)
        hit = np.isfinite(points[:, 0])
        world_from_b = np.linalg.inv(b.camera_from_world)
        rays = points[hit] - world_from_b[:3, 3]
        hidden = np.ones(len(points), bool)
        hidden[hit] = raycast.cast(synthetic.WORLD, world_from_b[:3, 3], rays).distance < 1 - 1e-4
        pixels, _ = derived.project(points, b.intrinsics, b.camera_from_world)
        hidden |= ~((pixels >= 0) & (pixels < (70, 56))).all(axis=1)
        corner = np.floor(np.nan_to_num(pixels) - 0.5).astype(int)
        around = [
            b.instance[(corner[:, 1] + r).clip(0, 55), (corner[:, 0] + c).clip(0, 69)] for r in (0, 1) for c in (0, 1)
        ]
        smooth = (np.ptp(around, axis=0) == 0) & (around[0] > 0)  # else a silhouette runs between these pixels
        wrong = ((occluded.reshape(-1) == 255) != hidden) & smooth
        assert hit.sum() > 1500 and 0.1 < hidden[hit & smooth].mean() < 0.9
        assert wrong.sum() <= 0.005 * hit.sum()

    def test_what_the_flow_leads_to_is_the_same_point(self, pristine: Path) -> None:
        """Warps the layer of positions; a flow with x and y exchanged, or of the wrong sign, leads far away."""
        a, b = scene_of(pristine).views[:2]
        moved, occluded = flow(a, a.depth_z, b, b.depth_z)
        where = np.nonzero(occluded == 0)
        assert warp_error(a, b, moved, where) < 0.03  # half a pixel is 0.02 at this distance
        assert warp_error(a, b, moved[..., ::-1], where) > 0.3
        assert warp_error(a, b, -moved, where) > 0.3

    def test_there_and_back_again(self, pristine: Path) -> None:
        layers = list(Derived(flow=True).layers(scene_of(pristine).views))
        assert [sorted(layer) for layer in (layers[0], layers[-1])] == [
            ["flow_forward", "occlusion_forward"],
            ["flow_backward", "occlusion_backward"],
        ]
        there, back = layers[0]["flow_forward"], layers[1]["flow_backward"]
        rows, columns = np.nonzero(layers[0]["occlusion_forward"] == 0)
        u, v = (np.floor(np.array([columns, rows]) + 0.5 + there[rows, columns].T)).astype(int)
        loop = there[rows, columns] + back[v, u]
        assert np.nanmedian(np.linalg.norm(loop, axis=1)) < 0.6
        assert np.isnan(there[scene_of(pristine).views[0].depth_z == 0]).all()


def warp_error(a: View, b: View, moved: np.ndarray, where: tuple[np.ndarray, ...]) -> float:
    """Return how far what b shows where the flow leads is from what a shows: the median over pixels."""
    rows, columns = where
    u, v = np.floor(np.array([columns, rows]) + 0.5 + moved[rows, columns].T).astype(int)
    assert a.position is not None and b.position is not None
    picked = b.position[v.clip(0, 55), u.clip(0, 69)]
    return float(np.median(np.linalg.norm(picked - a.position[rows, columns], axis=1)))


class TestFiles:
    @pytest.mark.parametrize("kind", ["paper", "colmap", "nerfstudio", "wai"])
    def test_beside_every_folder_layout(self, pristine: Path, tmp_path: Path, kind: str) -> None:
        options = Options(kind, str(pristine), str(tmp_path / "out"), scenes="1", flow=True, disparity=0.1)
        export_dataset(options, progress=False)
        folder = tmp_path / "out/texture_00/000001"
        views = open_dataset(pristine).scene(1).views
        for view, arrays in zip(views, Derived(True, 0.1).layers(views), strict=True):
            name = f"{view.index:04d}"
            stored = read_exr(folder / "disparity" / f"{name}.exr")["Y"]
            np.testing.assert_array_equal(stored, arrays["disparity"])
            for way in ("forward", "backward"):
                there = (folder / f"flow_{way}" / f"{name}.flo").exists()
                assert there == (f"flow_{way}" in arrays) == (folder / f"occlusion_{way}" / f"{name}.png").exists()
                if there:
                    found = read_flo(folder / f"flow_{way}" / f"{name}.flo")
                    expected = arrays[f"flow_{way}"]
                    np.testing.assert_array_equal(found > 1e9, np.isnan(expected))
                    np.testing.assert_array_equal(found[found < 1e9], expected[np.isfinite(expected)])
                    grey = read_image(folder / f"occlusion_{way}" / f"{name}.png")
                    np.testing.assert_array_equal(grey[..., 0], arrays[f"occlusion_{way}"])

    def test_asked_for_later_is_another_export(self, pristine: Path, tmp_path: Path) -> None:
        words = ("wai", str(pristine), str(tmp_path / "out"))
        export_dataset(Options(*words, scenes="0"), progress=False)
        with pytest.raises(ConfigError, match=r"options\.flow is absent there and true now"):
            export_dataset(Options(*words, flow=True), progress=False)


def read_flo(file: Path) -> np.ndarray:
    """As the format is described: the float 202021.25, width, height, then x and y of every pixel, row by row."""
    content = file.read_bytes()
    assert np.frombuffer(content[:4], "<f4")[0] == np.float32(202021.25)
    width, height = np.frombuffer(content[4:12], "<i4")
    return np.frombuffer(content[12:], "<f4").reshape(height, width, 2)
