"""Depth knows nothing of lights, materials, seeds, samples or threads; and equal scenes give equal bytes."""

from __future__ import annotations

import numpy as np
import pytest
from blender_runtime import Outcome

GEOMETRY_LAYERS = ("depth_z", "normal", "instance", "position")
OTHER_LOOKS = ("red_texture", "mirror_texture", "leaning_texture", "other_light", "bulb_light", "plain_other_seed")


@pytest.mark.parametrize("name", ["plain_again", "plain_one_thread"])
def test_equal_scenes_give_equal_bytes(outcome: Outcome, name: str) -> None:
    for layer, array in outcome.frame("plain").items():
        assert np.array_equal(array, outcome.frame(name)[layer]), layer


def test_the_window_changes_no_byte(outcome: Outcome) -> None:
    """Rendering all pixels, or only those around the ball, is the same picture."""
    for layer, array in outcome.frame("plain_whole_picture").items():
        assert np.array_equal(array, outcome.frame("plain_no_denoiser")[layer]), layer


@pytest.mark.parametrize("name", OTHER_LOOKS)
def test_other_looks_leave_the_geometry_byte_equal(outcome: Outcome, name: str) -> None:
    plain, other = outcome.frame("plain"), outcome.frame(name)
    for layer in GEOMETRY_LAYERS:
        assert plain[layer].tobytes() == other[layer].tobytes(), layer
    assert not np.array_equal(plain["rgba"], other["rgba"])
    assert np.array_equal(plain["rgba"][..., 3], other["rgba"][..., 3]) or name == "plain_other_seed"


@pytest.mark.parametrize("name", ["haze", "world_haze"])
def test_what_hangs_in_the_air_is_no_geometry(outcome: Outcome, name: str) -> None:
    plain, other = outcome.frame("plain"), outcome.frame(name)
    for layer in GEOMETRY_LAYERS:
        assert plain[layer].tobytes() == other[layer].tobytes(), layer
    seen = plain["depth_z"] > 0
    assert np.abs(plain["rgba"][seen].astype(int) - other["rgba"][seen]).mean() > 10


def test_haze_swallows_no_ambient_light(outcome: Outcome) -> None:
    """Oracle: where light of 1 comes from everywhere and haze only scatters, its light is 1 too, less what the ball
    absorbs. Paths of the default length lose some of it, as they do between surfaces."""
    sky = outcome.frame("furnace")["depth_z"] == 0
    assert np.all(outcome.frame("furnace")["rgba"][..., 3] == 255)
    assert outcome.linear("furnace")[sky].mean() == pytest.approx(0.98, abs=0.03)
    assert 0.75 < outcome.linear("furnace_default")[sky].mean() < 0.95


def test_haze_thickens_with_distance_as_beer_and_lambert_say(outcome: Outcome) -> None:
    """Oracle: haze that scatters nothing lets exp(-density · distance) through; two distances, the same wall."""
    far, near = (outcome.linear("smoke", i)[10:18, 10:18].mean() for i in (0, 1))
    assert far / near == pytest.approx(np.exp(-0.4 * 2.0), rel=0.05)


def test_a_light_before_the_camera_is_not_seen(outcome: Outcome) -> None:
    """The bulb of this job hangs between camera and ball; alpha and depth show nothing of it."""
    assert np.array_equal(outcome.frame("plain")["rgba"][..., 3], outcome.frame("bulb_light")["rgba"][..., 3])


@pytest.mark.parametrize("frame", range(3))
def test_glass_is_a_surface(outcome: Outcome, frame: int) -> None:
    """A pane has depth, normals and an id of its own, like a wall in its place, and is not transparent in alpha."""
    glass, opaque = outcome.frame("glass", frame), outcome.frame("opaque", frame)
    for layer in GEOMETRY_LAYERS:
        assert np.array_equal(glass[layer], opaque[layer]), layer
    assert np.array_equal(glass["rgba"][..., 3], opaque["rgba"][..., 3])


def test_nothing_is_left_after_the_last_scene(outcome: Outcome) -> None:
    assert set(outcome.results["left_over"].values()) == {0}


def test_an_error_does_not_spoil_the_next_scene(outcome: Outcome) -> None:
    for layer, array in outcome.frame("box").items():
        assert np.array_equal(array, outcome.frame("works_after_errors")[layer]), layer


def test_noise_differs_between_frames_but_not_between_runs(outcome: Outcome) -> None:
    assert not np.array_equal(outcome.frame("plain")["rgba"], outcome.frame("plain_other_seed")["rgba"])
