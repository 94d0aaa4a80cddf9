"""Mesh files in Blender: where they are, which way up, their colours, and that nothing else changes their depth."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_scenes import LANDSCAPE, away_from_edges, hit_box, hit_sphere, linear_from_srgb, pixel_rays
from blender_runtime import Outcome
from scan_jobs import AROUND, BODIES, COLOURS, HALF

FRAMES = range(len(AROUND.positions))


def body(frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the exact (depth, outward normal) of a view of the body, and where both are the same around a pixel."""
    depth, normal = hit_box(*pixel_rays(AROUND, frame, *LANDSCAPE), -HALF, HALF)
    inner = away_from_edges(depth, normal)
    assert inner.mean() > 0.05
    return depth, normal, inner


@pytest.mark.parametrize("name", BODIES)
def test_a_mesh_is_centred_scaled_upright_and_not_mirrored(outcome: Outcome, name: str) -> None:
    """Every face has its own colour, so depth, normals and colours together leave only one way to stand."""
    for frame in FRAMES:
        depth, normal, inner = body(frame)
        seen = outcome.frame(name, frame)
        assert np.abs(seen["depth_z"][inner] / depth[inner] - 1).max() < 3e-6
        assert np.all(seen["depth_z"][beside(depth)] == 0)
        assert np.abs(seen["normal"][inner] - normal[inner]).max() < 1e-3
        assert set(np.unique(seen["instance"])) == {0, 1}
        index = 2 * np.abs(normal).argmax(axis=-1) + (normal.sum(axis=-1) > 0)
        linear = linear_from_srgb(seen["rgba"][..., :3] / 255)
        wanted = linear_from_srgb(COLOURS / 255)
        for face in np.unique(index[inner]):
            shown = np.median(linear[inner & (index == face)], axis=0)
            assert np.abs(wanted - shown).max(axis=1).argmin() == face
            if "ply" in name:  # matte under white light: its own colours; importers give other materials a gloss
                assert np.abs(wanted[face] - shown).max() < 0.004


def beside(depth: np.ndarray) -> np.ndarray:
    """Return the pixels neither on the body nor beside it."""
    hit = np.pad(depth > 0, 1)
    return ~(hit[1:-1, 1:-1] | hit[:-2, 1:-1] | hit[2:, 1:-1] | hit[1:-1, :-2] | hit[1:-1, 2:])


@pytest.mark.parametrize("name", ["scan_ball", "scan_ball_x"])
def test_a_files_own_normals_turn_with_it(outcome: Outcome, name: str) -> None:
    for frame in FRAMES:
        depth, normal = hit_sphere(*pixel_rays(AROUND, frame, *LANDSCAPE), np.zeros(3), 1.0)
        inner = away_from_edges(depth, normal)
        seen = outcome.frame(name, frame)
        assert np.abs(seen["depth_z"][inner] / depth[inner] - 1).max() < 5e-4  # facets of 3°
        cosine = (seen["normal"][inner] * normal[inner]).sum(axis=-1)
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.3


def test_depth_depends_on_neither_material_nor_light(outcome: Outcome) -> None:
    for frame in FRAMES:
        plain = outcome.frame("scan_obj", frame)
        for other in ("scan_again", "scan_of_bank", "scan_lit", "scan_after_errors"):
            for layer in ("depth_z", "normal", "instance", "position"):
                assert np.array_equal(plain[layer], outcome.frame(other, frame)[layer]), (other, layer)
        assert np.array_equal(plain["rgba"], outcome.frame("scan_again", frame)["rgba"])
        assert not np.array_equal(plain["rgba"], outcome.frame("scan_of_bank", frame)["rgba"])
        assert not np.array_equal(plain["rgba"], outcome.frame("scan_lit", frame)["rgba"])


@pytest.mark.parametrize("name", ["scan_of_bank", "scan_of_bank_ply"])
def test_a_material_of_the_bank_replaces_the_meshs_own(outcome: Outcome, name: str) -> None:
    _, _, inner = body(0)
    colours = outcome.frame(name)["rgba"][inner].astype(int)
    assert np.ptp(colours[:, :3], axis=1).max() <= 2 and 100 < np.median(colours[:, 0]) < 180  # grey, as that material


def test_a_material_of_the_bank_is_nowhere_mirrored(outcome: Outcome) -> None:
    """The corners of four tiles meet in the middle of every face, as they do where the picture is repeated."""
    for frame in range(6):
        rgb = outcome.frame("scan_letters", frame)["rgba"][..., :3].astype(int)
        middle, centres = np.array(rgb.shape[:2]) / 2, []
        for colour in ((220, 220, 30), (30, 30, 220), (30, 220, 30), (220, 30, 30)):
            near = np.argwhere(np.abs(rgb - colour).max(axis=-1) < 40)
            assert len(near) > 20, (frame, colour)
            centres.append(np.sign(near.mean(axis=0) - middle).tolist())
        assert centres == [[-1, -1], [-1, 1], [1, -1], [1, 1]], frame


def test_a_mesh_without_colours_is_grey_and_said_to_be(outcome: Outcome) -> None:
    colours = outcome.frame("scan_ball")["rgba"][60:80, 60:80, :3].astype(int)
    assert np.ptp(colours, axis=-1).max() <= 2
    assert "the mesh ball.obj has no material and no colours, so it is grey" in outcome.stderr
    assert "body.obj has no material" not in outcome.stderr


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("scan_changed", "SceneRejected", "changed.ply or a file it shows has changed since scene test_00/000000"),
        ("scan_missing", "DatasetError", "body.obj of scene test_00/000000 was not given; check geometry.scan_folder"),
        ("scan_gone", "SceneRejected", "gone.obj cannot be read"),
        ("scan_unreadable", "RenderError", "texture fake.png of the mesh unreadable.obj"),
    ],
)
def test_meshes_that_cannot_be_shown_are_refused(outcome: Outcome, name: str, kind: str, said: str) -> None:
    found, message = outcome.error(name)
    assert found == kind and said in message
