"""Pictures are not mirrored, maps go where they belong, overrides replace them, and colours are exact."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_scenes import linear_from_srgb
from blender_jobs import letters
from blender_runtime import Outcome
from PIL import Image

FACE = (slice(17, 32), slice(24, 46))  # pixels well inside the face of face_scene


def face(outcome: Outcome, name: str) -> np.ndarray:
    """Return the mean linear colour of the square face."""
    colour = outcome.linear(name)[FACE]
    return colour.reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize(
    ("name", "levels"),
    [("picture_front", 1), ("picture_back", 1), ("picture_unusual", 3), ("scan_board", 6)],  # a JPEG; a gloss in 3.4
)
def test_the_picture_looks_like_itself(outcome: Outcome, name: str, levels: int) -> None:
    """The face fills the frame under white light of radiance 1: what is seen is the file itself, not mirrored."""
    rendered = outcome.frame(name)["rgba"]
    expected = np.asarray(Image.fromarray(letters()).resize(rendered.shape[1::-1], Image.Resampling.BILINEAR)).astype(
        int
    )
    difference = np.abs(rendered[..., :3].astype(int) - expected).max(axis=-1)
    flat = np.ones(difference.shape, bool)  # away from the picture's own edges, where resampling differs
    for axis in (0, 1):
        for step in range(-4, 5):
            flat &= np.abs(np.roll(expected, step, axis) - expected).max(axis=-1) == 0
    flat[:3] = flat[-3:] = flat[:, :3] = flat[:, -3:] = False
    assert flat.mean() > 0.4 and difference[flat].max() <= levels
    for mirrored in (expected[:, ::-1], expected[::-1], expected[::-1, ::-1]):
        assert np.abs(rendered[..., :3].astype(int) - mirrored).max(axis=-1)[flat].max() > 100


def test_coarse_textures_where_blender_has_them_and_only_on_demand(outcome: Outcome) -> None:
    """A pixel is 32 texels wide: the filter reads their mean, which many samples approach otherwise."""
    if tuple(map(int, outcome.results["version"].split("."))) < (5, 2):
        kind, message = outcome.error("picture_mip")
        assert kind == "EnvironmentProblem" and "5.2 and newer" in message
        return
    mip, again, linear = (outcome.frame(f"picture_{name}")["rgba"] for name in ("mip", "mip_again", "fine"))
    assert np.array_equal(mip, again) and not np.array_equal(mip, linear)
    assert np.abs(mip.astype(float) - linear).mean() < 15
    record = outcome.results["jobs"]["picture_mip"]["record"]["render"]
    assert record["texture_filter"] == "mip"


def test_normal_maps_lean_the_way_opengl_says(outcome: Outcome) -> None:
    """Normals 30° towards +u (right) or +v (up); light from 45° right, left or above: the cosines are 15° and 75°."""
    assert face(outcome, "leans_right_lit_right")[0] > 2.5 * face(outcome, "leans_right_lit_left")[0]
    aligned = np.cos(np.radians(15)) / (
        np.cos(np.radians(30)) * np.cos(np.radians(45))
    )  # leaning to the light / across it
    ratio = face(outcome, "leans_up_lit_above")[0] / face(outcome, "leans_up_lit_right")[0]
    assert abs(ratio / aligned - 1) < 0.1
    assert abs(face(outcome, "leans_up_lit_above")[0] / face(outcome, "leans_right_lit_right")[0] - 1) < 0.02


def test_the_height_map_is_relief_only_where_asked_for(outcome: Outcome) -> None:
    """The ramp rises to the right, so it looks left."""
    assert face(outcome, "ramp_lit_left")[0] > 1.2 * face(outcome, "ramp_lit_right")[0]
    assert abs(face(outcome, "ramp_off_lit_left")[0] / face(outcome, "ramp_off_lit_right")[0] - 1) < 0.02


def test_a_mirror_shows_the_light_times_its_colour(outcome: Outcome) -> None:
    """Metal of roughness 0 seen head-on under uniform radiance 0.5: its base colour halved, within one step of 255."""
    expected = linear_from_srgb(np.array([200, 120, 60]) / 255) / 2
    display = np.where(expected <= 0.0031308, expected * 12.92, 1.055 * expected ** (1 / 2.4) - 0.055) * 255
    centre = outcome.frame("mirror")["rgba"][23:26, 33:37, :3].astype(float)
    assert np.abs(centre - display).max() <= 1.0
    brighter = np.minimum(expected * 2, 1)
    display = (1.055 * brighter ** (1 / 2.4) - 0.055) * 255
    assert np.abs(outcome.frame("mirror_exposed")["rgba"][23:26, 33:37, :3] - display).max() <= 1.0


def test_roughness_comes_from_the_map_or_the_override(outcome: Outcome) -> None:
    """A sun behind the camera: smooth metal mirrors it into a small patch, rough metal spreads it over the face."""
    sharp, spread = (outcome.linear(name)[FACE].mean(axis=-1) for name in ("metal_by_map", "metal_made_rough"))
    assert (sharp > 0.5 * sharp.max()).mean() < 0.3 and sharp.max() > 0.5
    assert (spread > 0.5 * spread.max()).mean() > 0.9 and spread.max() < 0.1


def test_metallic_comes_from_the_map_or_the_override(outcome: Outcome) -> None:
    """Under uniform light a smooth metal has its own colour; made a dielectric the same surface adds white."""
    metal, dielectric = face(outcome, "mirror"), face(outcome, "metal_made_dielectric")
    base = linear_from_srgb(np.array([200, 120, 60]) / 255) / 2
    assert np.allclose(metal, base, rtol=0.03)
    assert dielectric[2] > 1.15 * base[2], "a dielectric reflects 4 % white on top of its dark blue"
    grey = linear_from_srgb(np.array(128) / 255) / 2
    assert np.allclose(face(outcome, "grey_made_metal"), grey, rtol=0.03)
    assert face(outcome, "rough_metal")[0] < metal[0], "single scattering on rough metal loses light"


def test_equal_slots_share_a_material_and_files_are_loaded_once(outcome: Outcome) -> None:
    """Nine primitives in five slots: grey, grey with another roughness (twice each), red."""
    counts = outcome.results["jobs"]["shared"]["counts"]
    assert counts["materials"] == 3
    assert counts["images"] == 6, (
        "grey, red, normal, white (roughness), black (metallic), and Blender's own render result"
    )
    assert counts["meshes"] == 9


def test_light_passes_through_glass(outcome: Outcome) -> None:
    """A pane above a floor under a sun: the floor below it is lit like the floor beside it."""
    floor = outcome.linear("under_glass")[20:26].mean(axis=(0, 2))
    assert floor.min() > 0.6 * floor.max()
