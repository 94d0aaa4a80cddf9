"""From files to the network's input: pixel centres, colours and depth on one grid, masks, scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plane_scenes
import pytest
import torch

from megasynth_attr.core.ranges import Uniform
from megasynth_train.data.batch import load_step
from megasynth_train.data.device import near_depth, prepare
from megasynth_train.data.geometry import unproject
from megasynth_train.data.loader import StepLoader
from megasynth_train.data.plan import Sampling
from megasynth_train.data.sources import open_sources
from megasynth_train.training.settings import DataSettings

PLAIN = DataSettings(views=Uniform(4, 4), images_per_step=8, validation_share=0, width_px=126, workers=0, augment=False)
CROPS = replace(PLAIN, augment=True, jitter_share=0, grey_share=0, crop=Uniform(0.6, 1.2), zoom=0.5)


def batches(settings, folder, steps=3, training=True):
    settings = replace(settings, sources=(str(folder),))
    data = open_sources(settings)
    sampling = Sampling(data.train if training else data.validation, settings, 0, training=training)
    return [(raw, prepare(raw, "cpu", settings)) for raw in StepLoader(sampling, range(steps))]


def world_points(raw, target):
    """Return the target's points in the data's world [B, S, H, W, 3], float64: the gauge undone."""
    scale = target.scale.double()
    depth = target.depth.double() * scale[:, None, None, None]
    points = unproject(depth, target.intrinsics.double())  # camera frames
    poses = raw.camera_from_world
    rotation, translation = poses[..., None, :3, :3], poses[..., None, None, :3, 3]
    return ((points - translation) @ rotation).numpy()


def source_pixels(raw, target):
    """Return [B, S, H, W, 2]: where each target pixel's centre lies in the source, by the two intrinsics alone."""
    height, width = target.image_size_hw
    pixels = np.concatenate([plane_scenes.centres(height, width), np.ones((height, width, 1))], -1)
    back = raw.intrinsics.numpy() @ np.linalg.inv(target.intrinsics.double().numpy())
    return np.einsum("bsij,hwj->bshwi", back, pixels)[..., :2]


@pytest.mark.parametrize("factor", [1, 3])
def test_points_lie_on_the_plane_exactly_where_pixel_centres_coincide(tmp_path, factor):
    """At 1:1 and at 3:1 every target centre is a source centre; half a pixel of error would be 1e-3."""
    size = 126 * factor
    intrinsics = plane_scenes.pinhole(1.1 * size, 1.2 * size, size / 2, size / 2)
    plane_scenes.write_scene(tmp_path / "s", (size, size), intrinsics, 4)
    for raw, target in batches(PLAIN, tmp_path, 1):
        assert (raw.windows == (0, 0, size, size)).all() and target.masks.all()
        residual = world_points(raw, target) @ plane_scenes.NORMAL - plane_scenes.OFFSET
        assert np.abs(residual).max() < 2e-6
        shifted = world_points(raw, replace(target, intrinsics=target.intrinsics + 0.1 * torch.eye(3)[:, [1, 2, 0]]))
        assert np.abs(shifted @ plane_scenes.NORMAL - plane_scenes.OFFSET).max() > 1e-4  # the test can fail


@pytest.mark.parametrize(("size", "centre"), [((150, 170), (85, 75)), ((333, 251), (119.7, 171.2))])
def test_random_windows_keep_points_on_the_plane_and_colours_on_their_pixels(tmp_path, size, centre):
    intrinsics = plane_scenes.pinhole(210, 190, *centre)
    plane_scenes.write_scene(tmp_path / "s", size, intrinsics, 5, alpha=True)
    windows, residuals = set(), []
    for raw, target in batches(replace(CROPS, aspect=Uniform(0.5, 1.0)), tmp_path, 4):
        height, width = target.image_size_hw
        windows |= {tuple(w) for w in raw.windows.reshape(-1, 4).tolist()}
        at = source_pixels(raw, target)
        # colours: red and green tell the source pixel; antialiased bicubic keeps straight lines straight
        coded = plane_scenes.LOW + plane_scenes.RANGE * at / (size[1], size[0])
        images = target.images.permute(0, 1, 3, 4, 2).numpy()[..., :2] * 255
        inner = (slice(None), slice(None), slice(8, height - 8), slice(8, width - 8))
        error_px = (images - coded)[inner] * (size[1], size[0]) / plane_scenes.RANGE
        assert np.abs(error_px).max() < 0.75 * max(size) / plane_scenes.RANGE  # 8-bit steps
        assert np.abs(error_px.mean(axis=(2, 3))).max() < 0.06  # no shift
        # depth: that of a pixel at most half a source pixel away, and not shifted
        poses = raw.camera_from_world.numpy()
        depth = target.depth.numpy() * target.scale.numpy()[:, None, None, None]
        for b, s in np.ndindex(depth.shape[:2]):
            exact = plane_scenes.depth_of(at[b, s], intrinsics, poses[b, s])
            step = [
                np.abs(plane_scenes.depth_of(at[b, s] + half, intrinsics, poses[b, s]) - exact)
                for half in ((0.51, 0), (0, 0.51))
            ]
            residual = depth[b, s] - exact
            assert (np.abs(residual) <= step[0] + step[1] + 1e-5).all()
            residuals.append(residual.mean() / (step[0] + step[1]).mean())
    assert len(windows) > 20
    assert np.abs(np.mean(residuals)) < 0.02 and np.abs(np.median(residuals)) < 0.01  # of half a pixel


def test_the_principal_point_stays_in_the_middle(tmp_path):
    intrinsics = plane_scenes.pinhole(210, 190, 119.7, 171.2)
    plane_scenes.write_scene(tmp_path / "s", (333, 251), intrinsics, 4)
    for raw, target in batches(CROPS, tmp_path):
        offset = target.intrinsics[..., :2, 2] - torch.tensor([63.0, 63.0])
        scale = 126 / torch.from_numpy(raw.windows[..., [3, 2]])
        assert (offset.abs() <= 0.25 * scale + 1e-4).all()


def test_the_gauge(ours):
    """World = first camera; the mean distance of visible points from it is 1 (computed here from the raw arrays)."""
    for raw, target in batches(replace(PLAIN, views=Uniform(3, 3)), ours):
        torch.testing.assert_close(target.camera_from_world[:, 0], torch.eye(4).expand(len(raw.names), 4, 4))
        points = world_points(raw, target)
        for b in range(len(raw.names)):
            first = raw.camera_from_world[b, 0].numpy()
            visible = points[b][target.masks[b].numpy()] @ first[:3, :3].T + first[:3, 3]
            mean = np.linalg.norm(visible, axis=1).mean()
            assert mean == pytest.approx(target.scale[b].item(), rel=1e-5)
        assert (target.depth[~target.masks] == 0).all() and 0 < target.masks.float().mean() < 1


def test_background_is_white_and_masked(ours):
    for _, target in batches(PLAIN, ours, 1, training=True):
        background = (~target.masks).float().mean()
        white = (target.images.amin(dim=2) == 1)[~target.masks].float().mean()
        assert background > 0.1 and white > 0.5  # the rest: silhouettes, smoothed by the resize
        assert target.images.amin() < 0.2


def test_depth_quantile_counts_valid_pixels_only():
    depth = torch.zeros(3, 10, 10)
    depth[0].view(-1)[:50] = torch.arange(1, 51).float()
    depth[1].view(-1)[:] = torch.randperm(100, generator=torch.Generator().manual_seed(0)).float() + 1
    (got,) = near_depth((depth,), 0.9)
    assert got[0].max() == 45 and (got[0] > 0).sum() == 45  # rank round(0.9 × 49) + 1
    assert got[1].max() == 90 and (got[1] > 0).sum() == 90
    assert (got[2] == 0).all()  # a frame without depth
    assert near_depth((depth,), 1.0)[0] is depth


def test_depth_quantile_reaches_the_mask(ours):
    wide = [t.masks.sum() for _, t in batches(PLAIN, ours, 1)]
    less = [t.masks.sum() for _, t in batches(replace(PLAIN, depth_quantile=0.5), ours, 1)]
    assert 0.4 * wide[0] < less[0] < 0.6 * wide[0]


def test_sources_of_different_sizes_share_a_batch(ours, tmp_path):
    plane_scenes.write_scene(tmp_path / "a/s", (150, 90), plane_scenes.pinhole(120, 120, 45, 75), 5)
    settings = replace(PLAIN, views=Uniform(2, 2), sources=(str(ours), str(tmp_path)))
    data = open_sources(settings)
    raw = load_step(Sampling(data.train, settings, 0), 0)
    assert {tuple(i.shape[1:3]) for i in raw.images_u8} == {(56, 70), (150, 90)}
    target = prepare(raw, "cpu", settings)
    assert target.images.shape == (4, 2, 3, 126, 126) and torch.isfinite(target.depth).all()
    for b, name in enumerate(raw.names):
        alone = [i for i, n in enumerate(raw.names) if n == name]
        assert target.scale[b] > 0 and b in alone


def test_validation_sees_whole_images_unchanged(tmp_path):
    size, intrinsics = 126, plane_scenes.pinhole(130, 130, 63, 63)
    for i in range(6):
        plane_scenes.write_scene(tmp_path / f"s{i}", (size, size), intrinsics, 4, seed=i)
    settings = replace(PLAIN, augment=True, validation_share=0.5)
    for _, target in batches(settings, tmp_path, 2, training=False):
        expected = plane_scenes.colours(size, size).round().transpose(2, 0, 1) / 255
        np.testing.assert_allclose(target.images.numpy(), np.broadcast_to(expected, target.images.shape), atol=1e-6)


def test_training_is_jittered_and_reproducible(ours):
    settings = replace(PLAIN, augment=True)
    first, again = batches(settings, ours, 2), batches(settings, ours, 2)
    for (_, a), (_, b) in zip(first, again, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.depth, b.depth)
        assert a.images.min() >= 0 and a.images.max() <= 1
    plain = batches(replace(settings, jitter_share=0, grey_share=0), ours, 2)
    assert not torch.allclose(first[0][1].images, plain[0][1].images, atol=0.05)
    assert torch.equal(first[0][1].depth, plain[0][1].depth)
