"""The loader classes in ``examples/``, and what ``format=wai`` writes, read by the code that they are written for.

Neither MapAnything nor VGGT's training code is a package that installs here. So there are stand-ins, which do what the
base classes promise and check what these ask of a loader: keys, shapes, types, and the conventions by which points
follow. Where a checkout of the published code is at hand, the same is checked with that, and the stand-ins against it::

    MAPANYTHING_DIR=map-anything VGGT_TRAINING_DIR=vggt/training pytest -m proof tests/dataset/test_loaders.py

in an environment with what both need: NumPy 2, torchvision, opencv-python-headless, uniception, einops, plyfile,
trimesh, hydra-core.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from megasynth_attr.dataset.export.__main__ import Options, export_dataset
from megasynth_attr.dataset.export.derived import covisibility
from megasynth_attr.dataset.images import read_exr, read_image
from megasynth_attr.dataset.reader import SceneData, View, open_dataset
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


Published = Callable[..., Any]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    """Return what imports a module of the published code that an environment variable names; skips without it."""
    before = set(sys.modules)

    def module(variable: str, name: str) -> Any:
        if not (folder := os.environ.get(variable, "")):
            pytest.skip(f"{variable}= names no checkout of the published code")
        for path in (Path(folder).resolve().parent, Path(folder).resolve()):
            monkeypatch.syspath_prepend(str(path))
        return importlib.import_module(name)

    yield module
    for name in sys.modules.keys() - before:
        if name.partition(".")[0] in ("data", "mapanything", "vggt"):
            del sys.modules[name]


def require_same_interface(stand_in: Any, real: Any) -> None:
    """Check that a function or class takes what a stand-in for it takes: the same names in the same order."""
    if inspect.isclass(stand_in):
        for name, value in vars(stand_in).items():
            if inspect.isfunction(value):
                require_same_interface(value, getattr(real, name))
        return
    wanted = list(inspect.signature(stand_in).parameters)
    assert [name for name in inspect.signature(real).parameters if name in wanted] == wanted, real


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


def vggt_conf(**changed: Any) -> SimpleNamespace:
    """Return the configuration that all of its data sets share."""
    conf = {"training": True, "inside_random": False, "get_nearby": False, "allow_duplicate_img": True, "debug": False}
    augs = SimpleNamespace(scales=None, cojitter=False, cojitter_ratio=0.5, color_jitter=None, gray_scale=False)
    augs.gau_blur = False
    sizes = {"img_size": 70, "patch_size": 14, "rescale": False, "rescale_aug": False, "landscape_check": False}
    rest = {"augs": augs, "fix_img_num": -1, "fix_aspect_ratio": 1.0, "load_track": False, "track_num": 0}
    return SimpleNamespace(**(conf | sizes | rest | changed))


def check_vggt(
    batch: dict[str, Any], scene: SceneData, centre: float, shape: tuple[int, int] = (56, 70), resized: bool = False
) -> None:
    """Check what one of its data sets returned about a scene: keys, shapes, and where points are.

    ``centre``: of the first pixel. Of pictures that are only cut, points are those of the ray caster; of resized ones,
    which take the nearest pixel's depth, they lie on its surfaces.
    """
    assert set(batch) == VGGT_KEYS and batch["frame_num"] == len(batch["ids"])
    assert {len(batch[key]) for key in VGGT_KEYS - {"seq_name", "frame_num"}} == {batch["frame_num"]}
    for i, index in enumerate(batch["ids"]):
        view, mask = scene.views[index], batch["point_masks"][i]
        assert view.position is not None and mask.shape == shape and mask.sum() > 100
        assert batch["images"][i].shape == (*shape, 3) and batch["images"][i].dtype == np.uint8
        assert batch["depths"][i].shape == shape and batch["extrinsics"][i].shape == (3, 4)
        assert batch["intrinsics"][i].shape == (3, 3) and (batch["original_sizes"][i] == (56, 70)).all()
        assert {batch[key][i].shape for key in ("world_points", "cam_points")} == {(*shape, 3)}
        if not resized:
            left, top = (view.intrinsics[:2, 2] + centre - 0.5 - batch["intrinsics"][i][:2, 2]).astype(int)
            part = (slice(top, top + shape[0]), slice(left, left + shape[1]))
            np.testing.assert_array_equal(batch["images"][i], view.rgb[part])
            np.testing.assert_array_equal(mask, view.depth_z[part] > 0)
            np.testing.assert_allclose(batch["world_points"][i][mask], view.position[part][mask], atol=2e-6)
        assert surface_error(batch["world_points"][i][mask], view) < 0.02
        z = view.camera_from_world[2, :3] @ batch["world_points"][i][mask].T + view.camera_from_world[2, 3]
        np.testing.assert_allclose(batch["cam_points"][i][mask][:, 2], z, rtol=1e-5)


def surface_error(points: np.ndarray, view: View) -> float:
    """Return by how much the depth of N×3 points, seen from a view, differs from its own depth there: the median."""
    pixels, z = project(points.astype(float), view.intrinsics, view.camera_from_world)
    columns, rows = np.floor(pixels).astype(int).T
    there = view.depth_z[rows.clip(0, view.height_px - 1), columns.clip(0, view.width_px - 1)]
    return float(np.median(np.abs(z / np.where(there > 0, there, np.inf) - 1)))


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

    def test_keys_and_points(self, module: Any, pristine: Path) -> None:
        loader = module.MegaSynthDataset(vggt_conf(), folder=str(pristine))
        batch = loader.get_data(seq_index=1, img_per_seq=4, aspect_ratio=0.8)
        assert batch["seq_name"] == "megasynth_texture_00/000001" and batch["frame_num"] == 4
        check_vggt(batch, open_dataset(pristine).scene(1), module.PIXEL_CENTRE)

    def test_splits_share_no_scene(self, module: Any, pristine: Path) -> None:
        train, test = (module.MegaSynthDataset(vggt_conf(), split, str(pristine)) for split in ("train", "test"))
        assert train.sequence_list == ["texture_00/000000", "texture_00/000001"]
        assert test.sequence_list == ["texture_00/000002"] and test.len_train == 10_000

    def test_options_of_the_base_class(self, module: Any, pristine: Path) -> None:
        conf = vggt_conf(get_nearby=True, inside_random=True, allow_duplicate_img=False)
        batch = module.MegaSynthDataset(conf, folder=str(pristine)).get_data(img_per_seq=6)
        assert len(batch["ids"]) == 6
        by_name = module.MegaSynthDataset(vggt_conf(), folder=str(pristine))
        assert by_name.get_data(seq_name="texture_00/000000", ids=[3, 1])["ids"] == [3, 1]

    def test_bad_input(self, module: Any, pristine: Path) -> None:
        with pytest.raises(ValueError, match="split=val: write train or test"):
            module.MegaSynthDataset(vggt_conf(), "val", str(pristine))


@pytest.mark.proof
class TestPublishedVggt:
    @pytest.fixture
    def module(self, published: Published, monkeypatch: pytest.MonkeyPatch) -> Any:
        published("VGGT_TRAINING_DIR", "data.base_dataset")
        return example("vggt_training_loader", monkeypatch)

    def test_the_stand_in_is_like_it(self, module: Any, published: Published) -> None:
        base = published("VGGT_TRAINING_DIR", "data.base_dataset").BaseDataset
        points = published("VGGT_TRAINING_DIR", "data.dataset_util").depth_to_cam_coords_points
        require_same_interface(VggtBase, base)
        require_same_interface(partial(vggt_points, 0), points)
        depth, intrinsics = np.full((5, 7), 2.0), np.array([[9.0, 0, 3], [0, 8, 2], [0, 0, 1]])
        np.testing.assert_allclose(vggt_points(module.PIXEL_CENTRE, depth, intrinsics), points(depth, intrinsics))

    @pytest.mark.parametrize(("shape", "resized"), [((42, 56), False), ((42, 56), True), ((56, 84), True)])
    def test_points(self, module: Any, pristine: Path, shape: tuple[int, int], resized: bool) -> None:
        loader = module.MegaSynthDataset(vggt_conf(img_size=shape[1], rescale=resized), folder=str(pristine))
        batch = loader[1, 4, shape[0] / shape[1] + 1e-6]
        check_vggt(batch, open_dataset(pristine).scene(1), module.PIXEL_CENTRE, shape, resized)

    def test_what_a_training_step_is_given(
        self, module: Any, published: Published, pristine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Through its own ComposedDataset, with its scaling of pictures, which makes tensors of what loaders return."""
        composed = published("VGGT_TRAINING_DIR", "data.composed_dataset").ComposedDataset
        monkeypatch.setitem(sys.modules, "data.datasets.megasynth", module)
        target = {"_target_": "data.datasets.megasynth.MegaSynthDataset", "split": "train", "folder": str(pristine)}
        conf = vggt_conf(rescale=True, rescale_aug=True)
        conf.augs.scales = [0.8, 1.2]
        sample = composed([target], conf)[0, 4, 1.0]
        assert sample["images"].shape == (4, 3, 70, 70) and sample["world_points"].shape == (4, 70, 70, 3)
        assert 0 <= sample["images"].min() < sample["images"].max() <= 1
        scene = open_dataset(pristine).scene(0)
        for index, points, mask in zip(sample["ids"], sample["world_points"], sample["point_masks"], strict=True):
            assert surface_error(points[mask].numpy(), scene.views[index]) < 0.02


class MapAnythingBase:
    """As MapAnything's ``BaseDataset``, without random choices and resizing."""

    def __init__(self, num_views: int, split: str, covisibility_thres: float, resolution: tuple[int, int]) -> None:
        self.num_views, self.split, self.covisibility_thres = num_views, split, covisibility_thres
        self.resolution = resolution

    def _sample_view_indices(
        self, num_views_to_sample: int, num_views_in_scene: int, scene_pairwise_covisibility: np.ndarray
    ) -> np.ndarray:
        assert scene_pairwise_covisibility.shape == (num_views_in_scene, num_views_in_scene)
        assert scene_pairwise_covisibility.dtype == np.float32
        return np.argsort(-scene_pairwise_covisibility[0])[:num_views_to_sample]

    def _crop_resize_if_necessary(
        self, image: Any, resolution: Any, depthmap: Any, intrinsics: Any, additional_quantities: Any = None
    ) -> tuple[Any, ...]:
        assert image.dtype == np.uint8 and image.shape[2] == 3
        return Image.fromarray(image), depthmap, intrinsics, additional_quantities


def load_data(fname: str | Path, format_type: str) -> Any:
    """As MapAnything reads the two files a loader opens itself."""
    if format_type == "mmap":
        shape = tuple(int(size) for size in Path(Path(fname).name.split("--")[1]).stem.split("x"))
        return np.memmap(fname, dtype=np.float32, mode="r", shape=shape, offset=128)
    meta = json.loads(Path(fname).read_text())
    return meta | {"frame_names": {frame["frame_name"]: i for i, frame in enumerate(meta["frames"])}}


def load_frame(scene_root: Path, frame_key: str, modalities: list[str], scene_meta: dict[str, Any]) -> dict[str, Any]:
    """As MapAnything reads a frame: channels first, 0 to 1; cameras from the frame, else from the scene."""
    root, frame = scene_root, scene_meta | scene_meta["frames"][scene_meta["frame_names"][frame_key]]
    matrix = [[frame["fl_x"], 0.0, frame["cx"]], [0.0, frame["fl_y"], frame["cy"]], [0.0, 0.0, 1.0]]
    picture = read_image(root / frame[scene_meta["frame_modalities"]["image"]["frame_key"]])
    (depth,) = read_exr(root / frame[scene_meta["frame_modalities"]["depth"]["frame_key"]]).values()
    return {
        "image": torch.from_numpy(picture).permute(2, 0, 1).float() / 255,
        "depth": torch.from_numpy(depth.copy()),
        "intrinsics": torch.tensor(matrix),
        "extrinsics": torch.tensor(frame["transform_matrix"]).float(),
    }


@pytest.fixture(scope="module")
def wai(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as ``format=wai`` writes it, its last scene for validation; not to be changed."""
    out = tmp_path_factory.mktemp("export") / "wai"
    export_dataset(Options("wai", str(pristine), str(out), val_scenes=1), progress=False)
    return out


def mapanything_loader(module: Any, wai: Path, **changed: Any) -> Any:
    """Return the example's loader of the split val."""
    given = {"ROOT": str(wai / "texture_00"), "dataset_metadata_dir": str(wai / "metadata"), "split": "val"}
    given |= {"num_views": 3, "covisibility_thres": 0.25, "resolution": (70, 56)}
    return module.MegaSynthWAI(**(given | changed))


class TestMapAnything:
    def test_keys_and_points(self, pristine: Path, wai: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        module = example(
            "mapanything_loader",
            monkeypatch,
            mapanything__datasets__base__base_dataset={"BaseDataset": MapAnythingBase},
            mapanything__utils__wai__core={"load_data": load_data, "load_frame": load_frame},
        )
        loader = mapanything_loader(module, wai)
        assert loader.num_of_scenes == 1 and loader.scenes == ["000002"]
        assert loader.is_synthetic and not loader.is_metric_scale
        views = loader._get_views(0, 3, (70, 56))
        assert len(views) == 3
        for view in views:
            assert set(view) == MAPANYTHING_KEYS
            there = open_dataset(pristine).scene(2).views[int(view["instance"])]
            assert view["label"] == "texture_00/000002"
            np.testing.assert_array_equal(np.asarray(view["img"]), there.rgb)
            assert {view[key].dtype for key in ("depthmap", "camera_pose", "camera_intrinsics")} == {np.dtype("f4")}
            columns, rows = np.meshgrid(np.arange(70), np.arange(56))  # its pixel centres are whole numbers
            rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(view["camera_intrinsics"]).T
            points = rays * view["depthmap"][..., None] @ view["camera_pose"][:3, :3].T + view["camera_pose"][:3, 3]
            mask = view["non_ambiguous_mask"] == 1
            assert there.position is not None and (mask == (there.depth_z > 0)).all()
            np.testing.assert_allclose(points[mask], there.position[mask], atol=5e-6)
            assert reprojection_px(points, there, mask) < 1e-3


@pytest.mark.proof
class TestPublishedMapAnything:
    @pytest.fixture
    def core(self, published: Published) -> Any:
        return published("MAPANYTHING_DIR", "mapanything.utils.wai.core")

    @pytest.fixture
    def module(self, core: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        return example("mapanything_loader", monkeypatch)

    def test_the_stand_ins_are_like_it(self, core: Any, published: Published) -> None:
        base = published("MAPANYTHING_DIR", "mapanything.datasets.base.base_dataset").BaseDataset
        require_same_interface(MapAnythingBase, base)
        for stand_in in (load_data, load_frame):
            require_same_interface(stand_in, getattr(core, stand_in.__name__))

    def test_its_reader_reads_every_file(self, core: Any, pristine: Path, wai: Path) -> None:
        for scene in open_dataset(pristine).scenes:
            folder = wai / "texture_00" / scene.name
            meta = core.load_data(folder / "scene_meta.json", "scene_meta")
            assert list(meta["frame_names"]) == [f"{view.index:04d}" for view in scene.views]
            ours = load_data(folder / "scene_meta.json", "scene_meta")
            for view, name in zip(scene.views, meta["frame_names"], strict=True):
                frame = core.load_frame(folder, name, modalities=["image", "depth"], scene_meta=meta)
                np.testing.assert_array_equal((frame["image"] * 255).round().permute(1, 2, 0).numpy(), view.rgb)
                np.testing.assert_array_equal(frame["depth"].numpy(), view.depth_z)
                like = load_frame(folder, name, ["image", "depth"], ours)
                for key, value in like.items():
                    np.testing.assert_array_equal(frame[key].numpy(), value.numpy(), err_msg=key)
                pose = np.linalg.inv(view.camera_from_world)
                np.testing.assert_allclose(frame["extrinsics"].numpy(), pose, atol=1e-6)
            shares = folder / meta["scene_modalities"]["pairwise_covisibility"]["scene_key"]
            np.testing.assert_array_equal(core.load_data(shares, "mmap"), covisibility(scene.views))

    @pytest.mark.parametrize("kind", ["ours", "theirs"])
    @pytest.mark.parametrize("size", [(70, 56), (56, 42), (28, 28)])
    def test_points(
        self,
        kind: str,
        size: tuple[int, int],
        module: Any,
        published: Published,
        pristine: Path,
        wai: Path,
        tmp_path: Path,
    ) -> None:
        """What training is given, by our loader and by one that comes with it, in the pictures' size and in others."""
        given: dict[str, Any] = {"resolution": size, "transform": "imgnorm", "data_norm_type": "identity"}
        given |= {"max_num_retries": 0, "seed": 5}
        if kind == "ours":
            loader = mapanything_loader(module, wai, **given)
        else:
            listed = tmp_path / "val" / "dynamicreplica_scene_list_val.npy"
            listed.parent.mkdir()
            np.save(listed, np.load(wai / "metadata/val/texture_00_scene_list_val.npy"))
            loaders = published("MAPANYTHING_DIR", "mapanything.datasets.wai.dynamicreplica")
            given |= {"ROOT": str(wai / "texture_00"), "dataset_metadata_dir": str(tmp_path), "split": "val"}
            loader = loaders.DynamicReplicaWAI(num_views=3, covisibility_thres=0.25, **given)
        views = loader[0]
        assert len(views) == 3
        scene = open_dataset(pristine).scene(2)
        for view in views:
            there, mask = scene.views[int(Path(view["instance"]).name)], view["valid_mask"]
            assert view["img"].shape == (3, size[1], size[0]) and mask.sum() > 50 and there.position is not None
            if size == (70, 56):
                np.testing.assert_array_equal(mask, there.depth_z > 0)
                np.testing.assert_array_equal((view["img"] * 255).round().permute(1, 2, 0).numpy(), there.rgb)
                np.testing.assert_allclose(view["pts3d"][mask], there.position[mask], atol=5e-6)
                assert reprojection_px(view["pts3d"], there, mask) < 1e-3
            assert surface_error(view["pts3d"][mask], there) < 0.02
            if kind == "ours":
                np.testing.assert_array_equal(view["non_ambiguous_mask"], mask)
