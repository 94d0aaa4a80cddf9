"""COLMAP's models, sparse or dense, read by pycolmap (extra ``[colmap]``).

::

    <scene>/sparse/0/{cameras,images,…}.{bin,txt}    or sparse/…, as image_undistorter writes it
    <scene>/images/<name>
    <scene>/depth/<name or its stem>.{exr,png,npy}   or [dense/]stereo/depth_maps/<name>.geometric.bin

Poses are camera-from-world, OpenCV axes, the centre of the first pixel at (0.5, 0.5). Only undistorted cameras are
read: pinholes, and models whose coefficients of distortion are all 0. The model's scale is arbitrary, and depth must
have it; for a PNG the unit has to be given.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megasynth_attr.core.errors import DatasetError, importing
from megasynth_attr.core.names import inside
from megasynth_attr.core.pages.words import count_text
from megasynth_attr.core.pictures import PICTURE_SUFFIXES
from megasynth_train.data.depth_files import DepthFile
from megasynth_train.data.layouts.colmap_files import STRAIGHT, require_whole
from megasynth_train.data.layouts.nerfstudio import UNDISTORT
from megasynth_train.data.layouts.view import FileView, Layout, Reading, SceneViews, pinhole, usable

_MODELS = ("sparse/0", "sparse")
_DEPTHS = ("depth", "stereo/depth_maps", "dense/stereo/depth_maps")
_MAPS = (".geometric.bin", ".photometric.bin")
_ENDINGS = (".exr", ".png", ".npy")


def read_scene(folder: Path, reading: Reading) -> SceneViews:
    """Return a scene, its pictures in the order of their names; DatasetError if the model is damaged or distorted."""
    model = _model(folder)
    if model is None:
        raise DatasetError(f"{folder} holds no model of COLMAP's (sparse/0/cameras.bin or .txt)")
    with importing(f"{model}: pycolmap is needed to read it ({{error}}); pip install 'megasynth-attr[colmap]'"):
        import pycolmap
    require_whole(model)
    try:
        found = pycolmap.Reconstruction(model)
    except Exception as error:  # its C++ code raises whatever it likes on damaged files
        raise DatasetError(f"{model} cannot be read by pycolmap ({str(error).splitlines()[0]})") from None
    views = []
    try:
        images = sorted(found.images.values(), key=lambda image: image.name)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{model}: the name of a picture is not in UTF-8 ({error}); rename it there") from None
    for image in images:
        where, camera = f"{model}, {image.name}", found.cameras[image.camera_id]
        if camera.model.name not in STRAIGHT or any(camera.params[i] for i in camera.extra_params_idxs()):
            raise DatasetError(f"{where}: the lens distorts (camera model {camera.model.name}); {UNDISTORT}")
        focal = (camera.focal_length_x, camera.focal_length_y)
        intrinsics = pinhole(*focal, camera.principal_point_x, camera.principal_point_y)
        pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        picture = inside(folder / "images", image.name, where)
        depth = _depth(folder, image.name, reading.depth_unit)
        size = camera.height, camera.width
        views.append(FileView(picture, size, intrinsics, np.vstack([pose.matrix(), [0, 0, 0, 1]]), depth))
    return usable(views, str(model), reading, _unregistered(folder, {view.picture for view in views}))


def _model(folder: Path) -> Path | None:
    """Return the folder of the model: the first one, if there are several."""
    if not (folder / "images").is_dir():
        return None
    names = [folder / name for name in _MODELS]
    return next((m for m in names if any((m / f"cameras{ending}").is_file() for ending in (".bin", ".txt"))), None)


def _unregistered(folder: Path, registered: set[Path]) -> list[str]:
    pictures = {path for path in (folder / "images").rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES}
    left_out = count_text(len(pictures - registered), "picture")
    models = [path.name for path in sorted((folder / "sparse").glob("[1-9]*")) if path.is_dir()]
    found = [f"{left_out} that the model does not place"] if pictures - registered else []
    return found + [f"model sparse/{name}: the first one, sparse/0, is read" for name in models]


def _depth(folder: Path, name: str, unit: float) -> DepthFile | None:
    for place in _DEPTHS:
        stem = folder / place / name
        files = [stem.with_name(stem.name + ending) for ending in (*_MAPS, *_ENDINGS)]
        files += [stem.with_suffix(ending) for ending in _ENDINGS]
        if (file := next((file for file in files if file.is_file()), None)) is not None:
            if file.suffix == ".png" and not unit:
                raise DatasetError(
                    f"{file}: COLMAP's layout does not say what the numbers of a PNG mean; give the unit, e.g. "
                    "depth_unit=0.001 for millimetres in a model in metres"
                )
            return DepthFile(file, unit or 1.0)
    return None


LAYOUT = Layout(
    "colmap", "COLMAP's", "sparse/0/cameras.bin, images/", read_scene, lambda folder: _model(folder) is not None
)
