"""Reading datasets: scenes and views as NumPy arrays, each file read when it is asked for. Needs no Blender.

::

    for scene in open_dataset("runs/demo/texture_00").scenes:
        for view in scene.views:
            view.image, view.depth_z, view.intrinsics, view.camera_from_world
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from megasynth_attr.core.codec import from_plain
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.exr import decode_exr
from megasynth_attr.core.fields import read_part
from megasynth_attr.core.files import read_json, sha256_of
from megasynth_attr.core.names import within
from megasynth_attr.core.pictures import read_picture
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.archive import FileSum, listed_files
from megasynth_attr.dataset.conventions import CAMERAS_FORMAT, DATASET_FORMAT
from megasynth_attr.dataset.images import Decoder, read_depth, read_ids, read_vectors
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.record_file import Entry, listed_scenes, read_record_file
from megasynth_attr.dataset.recorded import ImageSize, RecordedDataset, read_recorded
from megasynth_attr.dataset.reprojection import world_points
from megasynth_attr.dataset.scene_files import File, holds, scene_file, size_of
from megasynth_attr.scene.factor import compare_plugins
from megasynth_attr.scene.spec import Scene, read_scene

CHANGED = "the file was changed after it was written: its checksum differs"


@dataclass(frozen=True)
class View:
    """One frame. Arrays are H×W(×channels), row 0 at the top, read from disk at each access."""

    scene_path: Path
    index: int
    intrinsics: np.ndarray  # 3×3 float64, pixels
    camera_from_world: np.ndarray  # 4×4 float64, OpenCV
    width_px: int
    height_px: int

    def file(self, layer: str) -> File:
        """Return the file of a layer: rgb, depth, normal, instance or position; DatasetError as ``SceneData.file``."""
        return scene_file(self.scene_path, paths.layer_file(layer, self.index))

    @property
    def pinhole(self) -> tuple[float, ...]:
        """fx, fy, cx, cy in pixels."""
        return tuple(self.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]].tolist())

    @property
    def image(self) -> np.ndarray:
        """H×W×4 uint8: sRGB with straight alpha; alpha is 0 where nothing is hit (in haze, 255 everywhere)."""
        return np.array(self.picture)

    @property
    def picture(self) -> Image.Image:
        """``image`` as Pillow decodes it, not yet copied into an array."""
        picture = read_picture(self.file("rgb"), RENDER_ANEW).image
        self._require_shape((picture.height, picture.width, len(picture.getbands())), "rgb", 4)
        return picture

    @property
    def rgb(self) -> np.ndarray:
        """H×W×3 uint8: ``image`` without alpha."""
        return self.image[..., :3]

    @property
    def depth_z(self) -> np.ndarray:
        """H×W float32: planar z in scene units at the pixel centre, 0 where nothing is hit."""
        return self.depth_by(decode_exr)

    def depth_by(self, decode: Decoder) -> np.ndarray:
        """Return ``depth_z``, its file decoded by ``decode``, which does what ``decode_exr`` does."""
        return self._shaped(read_depth(self.file("depth"), decode), "depth")

    @property
    def normal(self) -> np.ndarray | None:
        """H×W×3 float32: world space, facing the camera, 0 where nothing is hit; None if the dataset has none."""
        return self._shaped(read_vectors(self.file("normal")), "normal", 3) if self.has("normal") else None

    @property
    def instance(self) -> np.ndarray | None:
        """H×W uint16: index of the primitive + 1, 0 where nothing is hit; None if the dataset has none."""
        return self._shaped(read_ids(self.file("instance")), "instance") if self.has("instance") else None

    @property
    def position(self) -> np.ndarray | None:
        """H×W×3 float32: world position, 0 where nothing is hit; None if the dataset has none."""
        return self._shaped(read_vectors(self.file("position")), "position", 3) if self.has("position") else None

    @property
    def layers(self) -> list[str]:
        """The layers that this dataset was written with."""
        return [layer for layer in paths.LAYERS if layer in ("rgb", "depth") or self.has(layer)]

    def has(self, layer: str) -> bool:
        """Return whether this dataset was written with ``layer``."""
        return holds(self.scene_path, layer)

    def points_world(self) -> np.ndarray:
        """Return H×W×3 float64 world points of the pixel centres, from depth; NaN where nothing is hit."""
        return world_points(self.depth_z, self.intrinsics, self.camera_from_world)

    def _shaped(self, array: np.ndarray, layer: str, channels: int | None = None) -> np.ndarray:
        self._require_shape(array.shape, layer, channels)
        return array

    def _require_shape(self, shape: tuple[int, ...], layer: str, channels: int | None) -> None:
        expected = (self.height_px, self.width_px) + ((channels,) if channels else ())
        if shape != expected:
            raise DatasetError(f"{self.file(layer)} has shape {shape}, but cameras.json says {expected}")


@dataclass(frozen=True)
class SceneData:
    """One complete scene: a folder or an archive."""

    path: Path

    @property
    def name(self) -> str:
        """Six digits: the scene's index in its dataset."""
        return self.path.stem

    @property
    def index(self) -> int:
        return int(self.name)

    @cached_property
    def scene(self) -> Scene:
        """The scene file: everything that was drawn, per factor. Nothing that a dataset names is ever imported: the
        data of factors that no plugin of this process declares stay plain."""
        return read_scene(self.file(paths.SCENE_FILE), keep_unknown=True)

    def file(self, name: str) -> File:
        """Return one of its files, there or not; DatasetError if it links out of the dataset or the archive is bad."""
        return scene_file(self.path, name)

    @cached_property
    def cameras(self) -> dict[str, Any]:
        """cameras.json as it is; DatasetError if it is missing or damaged."""
        file = self.file(paths.CAMERAS_FILE)
        record = read_json(file, CAMERAS_FORMAT)
        if _shape(record.get("intrinsics")) != (3, 3) or not np.linalg.cond(record["intrinsics"]) < 1e12:
            raise DatasetError(f"{file} is damaged: intrinsics is missing or no 3×3 matrix that can be inverted")
        count, *matrix = _shape(record.get("camera_from_world")) or (0,)
        if not count or matrix != [4, 4]:
            raise DatasetError(f"{file} is damaged: camera_from_world is missing or no list of 4×4 matrices of numbers")
        if 0 in vars(read_part(ImageSize, record, f"{file} is damaged")).values():
            raise DatasetError(f"{file} is damaged: width_px or height_px is missing")
        return record

    @cached_property
    def checksums(self) -> dict[str, FileSum]:
        """What checksums.json says of every file; DatasetError if it is missing or damaged."""
        return listed_files(self.file(paths.CHECKSUMS_FILE))

    def change(self, name: str) -> str:
        """Return how a file that exists differs from what was written; "" if it does not."""
        file, written = self.file(name), self.checksums.get(name)
        if written is None:
            return "the file is not listed in checksums.json"
        if (size := size_of(file)) != written.bytes:
            return f"the file has {size} bytes, but {written.bytes} were written"
        return "" if sha256_of(file) == written.sha256 else CHANGED

    def require_intact(self) -> None:
        """Raise DatasetError naming the first file that is missing or not what was written, or a pose that is none."""
        layers = [paths.layer_file(layer, view.index) for view in self.views for layer in view.layers]
        self.require_unchanged([*paths.RECORDS, *layers])
        if not np.allclose(np.linalg.det(self.camera_from_world[:, :3, :3]), 1, atol=1e-3):
            raise DatasetError(f"{self.file(paths.CAMERAS_FILE)}: the 3×3 part of a pose is no rotation; {RENDER_ANEW}")

    def require_unchanged(self, names: Iterable[str]) -> None:
        """Raise DatasetError naming the first of these files that is missing or not what was written."""
        for name in names:
            file = self.file(name)
            if problem := self.change(name) if file.is_file() else "the file is missing":
                raise DatasetError(f"{file}: {problem}; {RENDER_ANEW}")

    @cached_property
    def intrinsics(self) -> np.ndarray:
        """3×3 float64, pixels; one for all views of the scene."""
        return np.array(self.cameras["intrinsics"], dtype=np.float64)

    @cached_property
    def camera_from_world(self) -> np.ndarray:
        """N×4×4 float64, OpenCV."""
        return np.array(self.cameras["camera_from_world"], dtype=np.float64)

    @property
    def views(self) -> tuple[View, ...]:
        """All views in the order of the trajectory."""
        width, height = self.cameras["width_px"], self.cameras["height_px"]
        return tuple(
            View(self.path, i, self.intrinsics, pose, width, height) for i, pose in enumerate(self.camera_from_world)
        )


@dataclass(frozen=True)
class Dataset:
    """One dataset folder: ``<attribute>_<kk>``."""

    path: Path
    record: dict[str, Any]  # dataset.json without its list of scenes
    recorded: RecordedDataset  # the same, as far as it is known here

    @property
    def name(self) -> str:
        return paths.dataset_name(self.attribute, self.dataset_index)

    @property
    def attribute(self) -> str:
        """Name of what varies."""
        return self.recorded.attribute

    @property
    def dataset_index(self) -> int:
        return self.recorded.dataset_index

    @property
    def scene_count(self) -> int:
        """How many scenes the dataset has when it is complete."""
        return self.recorded.scene_count

    @property
    def scenes(self) -> tuple[SceneData, ...]:
        """The scenes that exist, in order of their index."""
        return tuple(self.each_scene())

    def each_scene(self) -> Iterator[SceneData]:
        """Yield the scenes that exist, in order of their index, without holding them all."""
        for indices in paths.finished_by_thousand(self.path):
            yield from (SceneData(paths.scene_path(self.path, index)) for index in indices)

    def listed(self) -> Iterator[Entry] | None:
        """Return what dataset.json says of each scene; None if it was not finished, DatasetError if damaged."""
        return listed_scenes(self.path / paths.DATASET_FILE)

    def scene(self, index: int) -> SceneData:
        """Return one scene; DatasetError if it does not exist."""
        if not paths.is_finished(self.path, index):
            found = len(paths.finished_scenes(self.path))
            raise DatasetError(f"scene {index} is not in {self.path}; it has {found} of {self.scene_count}")
        return SceneData(paths.scene_path(self.path, index))


def open_dataset(path: str | Path) -> Dataset:
    """Return the dataset in a folder ``<attribute>_<kk>``.

    Raises DatasetError if there is no dataset, its record is damaged, or the folder is an experiment (the message names
    its datasets); ConfigError if a plugin of this process is another than the one it was made with.
    """
    folder = Path(path)
    file = folder / paths.DATASET_FILE
    if not file.is_file():
        if not folder.is_dir():
            raise DatasetError(f"there is no folder {folder}")
        inside = [p.parent.name for p in sorted(folder.glob(f"*/{paths.DATASET_FILE}"))]
        hint = f"it holds the datasets {', '.join(inside)}: name one of them" if inside else "generate one first"
        raise DatasetError(f"{folder} is no dataset: it has no {paths.DATASET_FILE}; {hint}")
    record = read_record_file(within(folder, file), DATASET_FORMAT)
    recorded = read_recorded(record, f"{file} is damaged")
    compare_plugins(recorded.config.factors, recorded.config.plugins, str(folder))
    return Dataset(folder, record, recorded)


def open_experiment(path: str | Path) -> list[Dataset]:
    """Return the datasets of an output folder, in order; DatasetError if there are none."""
    folder = Path(path)
    found = paths.in_order(file.parent for file in folder.glob(f"*/{paths.DATASET_FILE}"))
    if not found:
        raise DatasetError(f"{folder} holds no dataset; expected folders like texture_00 with a {paths.DATASET_FILE}")
    return [open_dataset(dataset) for dataset in found]


def open_datasets(path: Path) -> list[Dataset]:
    """Return the dataset in a folder, or all of an output folder; DatasetError if there is none."""
    is_dataset = (path / paths.DATASET_FILE).is_file() or not any(path.glob(f"*/{paths.DATASET_FILE}"))
    return [open_dataset(path)] if is_dataset else open_experiment(path)


def downstream_attributes(path: str | Path) -> frozenset[str]:
    """Return the attributes of an experiment whose datasets are for the downstream comparison, not for a cluster."""
    file = Path(path) / paths.EXPERIMENT_FILE
    named = read_json(file).get("downstream", []) if file.is_file() else []
    return frozenset(from_plain(tuple[str, ...], named, f"{file} is damaged: downstream"))


def blender_of(scene: SceneData) -> str:
    """Return the version of Blender that rendered a scene, "" if that is not recorded; DatasetError if damaged."""
    return str(read_json(scene.file(paths.RENDER_FILE)).get("blender", ""))


def _shape(value: Any) -> tuple[int, ...]:
    """Return the shape of nested lists of numbers, () for anything else."""
    try:
        array = np.array(value)
    except ValueError:  # rows of different lengths
        return ()
    return array.shape if array.dtype.kind in "if" else ()
