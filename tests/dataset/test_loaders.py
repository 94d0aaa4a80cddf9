"""The loader classes in ``examples/``, on top of stand-ins for the base classes they are written for.

Neither MapAnything nor VGGT's training code is a package that installs here. The stand-ins do what their base classes
promise, and check what these ask of a loader: keys, shapes, types, and the conventions by which points follow.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from megasynth_attr.dataset.export.__main__ import Options, export_dataset
from megasynth_attr.dataset.images import read_exr, read_image
from megasynth_attr.dataset.reader import View, open_dataset
from megasynth_attr.dataset.reprojection import project

torch = pytest.importorskip("torch")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
VGGT_KEYS = {  # of the dictionaries that its own data sets return
    *("seq_name", "ids", "frame_num", "images", "depths", "extrinsics", "intrinsics", "cam_points", "world_points"),
    *("point_masks", "original_sizes"),
}
MAPANYTHING_KEYS = {
    *("img", "depthmap", "camera_pose", "camera_intrinsics", "non_ambiguous_mask", "dataset", "label", "instance"),
}


def example(name: str, monkeypatch: pytest.MonkeyPatch, **modules: Any) -> ModuleType:
    """Return a file of ``examples/``; what it imports from elsewhere is given as module=(names and values)."""
    for dotted, content in modules.items():
        parts = dotted.split("__")
        for i in range(1, len(parts) + 1):
            module = ModuleType(".".join(parts[:i]))
            module.__dict__.update(content if i == len(parts) else {"__path__": []})
            if module.__name__ not in sys.modules or i == len(parts):
                monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def reprojection_px(points: np.ndarray, view: View, mask: np.ndarray) -> float:
    """Return how far points, one per pixel of a view, are from those pixels' centres, at most."""
    pixels, _ = project(points[mask].astype(float), view.intrinsics, view.camera_from_world)
    rows, columns = np.nonzero(mask)
    return float(np.linalg.norm(pixels - np.stack([columns, rows], axis=1) - 0.5, axis=1).max())


def vggt_points(centre: float, depth_map: np.ndarray, intrinsic: np.ndarray) -> np.ndarray:
    """As VGGT's ``depth_to_cam_coords_points``, published with the centre of the first pixel at 0 and at 0.5."""
    columns, rows = np.meshgrid(np.arange(depth_map.shape[1]), np.arange(depth_map.shape[0]))
    x = (columns - intrinsic[0, 2] + centre) * depth_map / intrinsic[0, 0]
    y = (rows - intrinsic[1, 2] + centre) * depth_map / intrinsic[1, 1]
    return np.stack([x, y, depth_map], axis=-1).astype(np.float32)


class VggtBase:
    """As VGGT's ``BaseDataset``, but nothing is resized."""

    centre: float

    def __init__(self, common_conf: Any) -> None:
        self.img_size = common_conf.img_size

    def get_target_shape(self, aspect_ratio: float) -> np.ndarray:
        return np.array([int(self.img_size * aspect_ratio), self.img_size])

    def get_nearby_ids(self, ids: Any, full_seq_num: int, expand_ratio: Any = None, expand_range: Any = None) -> Any:
        return np.insert(np.full(len(ids) - 1, (ids[0] + 1) % full_seq_num), 0, ids[0])

    def process_one_image(
        self,
        image: np.ndarray,
        depth_map: np.ndarray,
        extri_opencv: np.ndarray,
        intri_opencv: np.ndarray,
        original_size: np.ndarray,
        target_image_shape: np.ndarray,
        track: Any = None,
        filepath: Any = None,
        safe_bound: int = 4,
    ) -> tuple[Any, ...]:
        assert image.dtype == np.uint8 and image.shape == (*original_size, 3)
        assert depth_map.shape == image.shape[:2] and np.isfinite(depth_map).all()
        assert extri_opencv.shape == (3, 4) and intri_opencv.shape == (3, 3)
        assert target_image_shape.shape == (2,) and isinstance(filepath, str)
        camera = vggt_points(self.centre, depth_map, intri_opencv)
        world = (camera - extri_opencv[:, 3]) @ extri_opencv[:, :3]
        return image, depth_map, extri_opencv, intri_opencv, world, camera, depth_map > 1e-8, track


class TestVggt:
    @pytest.fixture(params=[0, 0.5])
    def module(self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
        monkeypatch.setattr(VggtBase, "centre", request.param, raising=False)
        return example(
            "vggt_training_loader",
            monkeypatch,
            data__base_dataset={"BaseDataset": VggtBase},
            data__dataset_util={"depth_to_cam_coords_points": partial(vggt_points, request.param)},
        )

    def common(self, **changed: Any) -> SimpleNamespace:
        conf = {"training": True, "inside_random": False, "get_nearby": False, "allow_duplicate_img": True}
        return SimpleNamespace(**(conf | {"img_size": 70, "debug": False} | changed))

    def test_keys_and_points(self, module: Any, pristine: Path) -> None:
        loader = module.MegaSynthDataset(self.common(), folder=str(pristine))
        batch = loader.get_data(seq_index=1, img_per_seq=4, aspect_ratio=0.8)
        assert set(batch) == VGGT_KEYS
        assert batch["seq_name"] == "megasynth_texture_00/000001" and batch["frame_num"] == len(batch["ids"]) == 4
        assert {len(batch[key]) for key in VGGT_KEYS - {"seq_name", "frame_num"}} == {4}
        scene = open_dataset(pristine).scene(1)
        for i, index in enumerate(batch["ids"]):
            view, mask = scene.views[index], batch["point_masks"][i]
            assert view.position is not None
            np.testing.assert_array_equal(batch["images"][i], view.rgb)
            np.testing.assert_array_equal(mask, view.depth_z > 0)
            np.testing.assert_allclose(batch["world_points"][i][mask], view.position[mask], atol=2e-6)
            assert reprojection_px(batch["world_points"][i], view, mask) < 1e-3
            z = view.camera_from_world[2, :3] @ batch["world_points"][i][mask].T + view.camera_from_world[2, 3]
            np.testing.assert_allclose(batch["cam_points"][i][mask][:, 2], z, rtol=1e-6)

    def test_splits_share_no_scene(self, module: Any, pristine: Path) -> None:
        train, test = (module.MegaSynthDataset(self.common(), split, str(pristine)) for split in ("train", "test"))
        assert train.sequence_list == ["texture_00/000000", "texture_00/000001"]
        assert test.sequence_list == ["texture_00/000002"] and test.len_train == 10_000

    def test_options_of_the_base_class(self, module: Any, pristine: Path) -> None:
        conf = self.common(get_nearby=True, inside_random=True, allow_duplicate_img=False)
        batch = module.MegaSynthDataset(conf, folder=str(pristine)).get_data(img_per_seq=6)
        assert len(batch["ids"]) == 6
        by_name = module.MegaSynthDataset(self.common(), folder=str(pristine))
        assert by_name.get_data(seq_name="texture_00/000000", ids=[3, 1])["ids"] == [3, 1]

    def test_bad_input(self, module: Any, pristine: Path) -> None:
        with pytest.raises(ValueError, match="split=val: write train or test"):
            module.MegaSynthDataset(self.common(), "val", str(pristine))


class MapAnythingBase:
    """As MapAnything's ``BaseDataset``, without random choices and resizing."""

    def __init__(self, num_views: int, split: str, covisibility_thres: float, resolution: tuple[int, int]) -> None:
        self.num_views, self.split, self.covisibility_thres = num_views, split, covisibility_thres
        self.resolution = resolution

    def _sample_view_indices(self, wanted: int, there: int, shares: np.ndarray) -> np.ndarray:
        assert shares.shape == (there, there) and shares.dtype == np.float32
        return np.argsort(-shares[0])[:wanted]

    def _crop_resize_if_necessary(
        self, image: Any, resolution: Any, depthmap: Any, intrinsics: Any, additional_quantities: Any = None
    ) -> tuple[Any, ...]:
        assert image.dtype == np.uint8 and image.shape[2] == 3
        return image, depthmap, intrinsics, additional_quantities


def load_data(file: str | Path, kind: str) -> Any:
    """As MapAnything reads the two files a loader opens itself."""
    if kind == "mmap":
        shape = tuple(int(size) for size in Path(Path(file).name.split("--")[1]).stem.split("x"))
        return np.memmap(file, dtype=np.float32, mode="r", shape=shape, offset=128)
    meta = json.loads(Path(file).read_text())
    return meta | {"frame_names": {frame["frame_name"]: i for i, frame in enumerate(meta["frames"])}}


def load_frame(root: Path, name: str, modalities: list[str], scene_meta: dict[str, Any]) -> dict[str, Any]:
    """As MapAnything reads a frame: channels first, 0 to 1; cameras from the frame, else from the scene."""
    frame = scene_meta | scene_meta["frames"][scene_meta["frame_names"][name]]
    matrix = [[frame["fl_x"], 0.0, frame["cx"]], [0.0, frame["fl_y"], frame["cy"]], [0.0, 0.0, 1.0]]
    picture = read_image(root / frame[scene_meta["frame_modalities"]["image"]["frame_key"]])
    (depth,) = read_exr(root / frame[scene_meta["frame_modalities"]["depth"]["frame_key"]]).values()
    return {
        "image": torch.from_numpy(picture).permute(2, 0, 1).float() / 255,
        "depth": torch.from_numpy(depth.copy()),
        "intrinsics": torch.tensor(matrix),
        "extrinsics": torch.tensor(frame["transform_matrix"]).float(),
    }


class TestMapAnything:
    def test_keys_and_points(self, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        export_dataset(Options("wai", str(pristine), str(tmp_path / "wai"), val_scenes=1), progress=False)
        module = example(
            "mapanything_loader",
            monkeypatch,
            mapanything__datasets__base__base_dataset={"BaseDataset": MapAnythingBase},
            mapanything__utils__wai__core={"load_data": load_data, "load_frame": load_frame},
        )
        loader = module.MegaSynthWAI(
            ROOT=str(tmp_path / "wai/texture_00"),
            dataset_metadata_dir=str(tmp_path / "wai/metadata"),
            split="val",
            num_views=3,
            covisibility_thres=0.25,
            resolution=(70, 56),
        )
        assert loader.num_of_scenes == 1 and loader.scenes == ["000002"]
        assert loader.is_synthetic and not loader.is_metric_scale
        views = loader._get_views(0, 3, (70, 56))
        assert len(views) == 3
        for view in views:
            assert set(view) == MAPANYTHING_KEYS
            there = open_dataset(pristine).scene(2).views[int(view["instance"])]
            assert view["label"] == "texture_00/000002"
            np.testing.assert_array_equal(view["img"], there.rgb)
            assert {view[key].dtype for key in ("depthmap", "camera_pose", "camera_intrinsics")} == {np.dtype("f4")}
            columns, rows = np.meshgrid(np.arange(70), np.arange(56))  # its pixel centres are whole numbers
            rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(view["camera_intrinsics"]).T
            points = rays * view["depthmap"][..., None] @ view["camera_pose"][:3, :3].T + view["camera_pose"][:3, 3]
            mask = view["non_ambiguous_mask"] == 1
            assert there.position is not None and (mask == (there.depth_z > 0)).all()
            np.testing.assert_allclose(points[mask], there.position[mask], atol=5e-6)
            assert reprojection_px(points, there, mask) < 1e-3
