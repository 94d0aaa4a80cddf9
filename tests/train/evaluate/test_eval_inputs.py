"""Which scenes and views are evaluated, and that image, depth and camera of a view fit each other."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from eval_scenes import TINY, fast, write_scenes
from plane_scenes import LOW, RANGE, centres, depth_of, pinhole, write_scene

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.evaluate.inputs import choose_views, network_size, read_scene, select_scenes
from megasynth_train.evaluate.options import EvaluateSettings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("eval_inputs"))


def test_views_are_evenly_spaced_from_the_first() -> None:
    assert choose_views(97, EvaluateSettings(views=8)) == (0, 12, 24, 36, 48, 60, 72, 84)  # the published stride 12
    assert choose_views(5, EvaluateSettings(views=8)) == (0, 1, 2, 3, 4)
    assert choose_views(100, EvaluateSettings(views=3, stride=10)) == (0, 10, 20)
    assert choose_views(15, EvaluateSettings(views=8, stride=10)) == (0, 10)
    assert choose_views(9, EvaluateSettings(view_ids=(7, 0, 3))) == (7, 0, 3)
    with pytest.raises(DatasetError, match=r"view 9 .* has 9 views"):
        choose_views(9, EvaluateSettings(view_ids=(0, 9)))


@pytest.mark.parametrize(
    ("source_hw", "width", "expected"),
    [
        ((518, 518), 518, (518, 518)),
        ((480, 640), 518, (392, 518)),
        ((640, 480), 126, (126, 126)),
        ((10, 900), 126, (14, 126)),
    ],
)
def test_the_network_s_image_keeps_the_shape_in_whole_patches(
    source_hw: tuple[int, int], width: int, expected: tuple[int, int]
) -> None:
    assert network_size(source_hw, width, 14) == expected


def test_scenes_by_number_and_split(data: Path, tmp_path: Path) -> None:
    def names(**changes: object) -> list[str]:
        return [scene.name for scene in select_scenes(fast(data, tmp_path, **changes)).scenes]

    everything = names()
    assert len(everything) == 3 and everything == sorted(everything)
    assert names(scenes="0-1") == everything[:2] and names(scenes="2") == everything[2:]
    assert names(max_scenes=2) == everything[:2]
    split = {side: names(split=side, validation_share=0.5) for side in ("validation", "training")}
    assert sorted(split["validation"] + split["training"]) == everything and all(split.values())
    with pytest.raises(ConfigError, match="index 3 is out of range"):
        names(scenes="3")
    with pytest.raises(ConfigError, match=r"split=validation contains no scene"):
        names(split="validation", validation_share=0.0)


def test_two_scenes_of_one_name_are_refused(data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "other" / data.name)
    settings = EvaluateSettings(data=(str(data), str(other)), out="x")
    with pytest.raises(ConfigError, match="have the same name texture_00/000000"):
        select_scenes(settings)


@pytest.mark.parametrize("changes", [{"stride": 2, "view_ids": (0, 1)}, {"view_ids": (1, 1)}, {"icp_distance": 0.0}])
def test_keys_that_contradict_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        EvaluateSettings(data=("a",), out="b", **changes).check()  # type: ignore[arg-type]
    for missing in ("data", "out"):
        with pytest.raises(ConfigError, match=f"{missing}= is missing"):
            EvaluateSettings(**{"data": ("a",), "out": "b", missing: ""}).check()  # type: ignore[arg-type]


def test_a_width_between_patches_is_refused(data: Path, tmp_path: Path) -> None:
    scene = select_scenes(fast(data, tmp_path)).scenes[0]
    with pytest.raises(ConfigError, match=r"width_px=100 .* use 98 or 112"):
        read_scene(scene, fast(data, tmp_path, width_px=100), TINY)


@pytest.mark.parametrize("principal_point", [(40.0, 30.0), (37.0, 33.0)])
def test_image_depth_and_camera_show_the_same_window(tmp_path: Path, principal_point: tuple[float, float]) -> None:
    size_hw = (60, 80)
    intrinsics = pinhole(90.0, 95.0, *principal_point)
    write_scene(tmp_path / "planes" / "one", size_hw, intrinsics, views=3)
    settings = fast(tmp_path, tmp_path / "out", width_px=42)
    found = read_scene(select_scenes(settings).scenes[0], settings, TINY)
    assert found.images.shape == (3, 3, 28, 42) and len(found.truth) == 3
    for view, image in zip(found.truth, found.images, strict=True):
        height, width = view.depth_z.shape
        pixels = centres(height, width)
        np.testing.assert_allclose(view.depth_z, depth_of(pixels, view.intrinsics, view.camera_from_world), rtol=1e-5)
        # the middle of the window is the camera's axis, to a quarter of a pixel: what decoding a pose assumes
        assert abs(view.intrinsics[0, 2] - width / 2) <= 0.25 and abs(view.intrinsics[1, 2] - height / 2) <= 0.25
        # colours tell source pixels: the network's image spans the same window
        u = (image[0].numpy() * 255 - LOW) / RANGE * size_hw[1]
        start = principal_point[0] - view.intrinsics[0, 2]
        expected = start + (np.arange(42) + 0.5) * width / 42
        np.testing.assert_allclose(u[:, 2:-2], np.broadcast_to(expected, u.shape)[:, 2:-2], atol=0.35)
