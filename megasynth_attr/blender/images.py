"""Loading image files into Blender, each once, and none that cannot be read: Cycles would paint it magenta."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.blender.blender_scene import BlenderScene
from megasynth_attr.core.errors import DatasetError, RenderError
from megasynth_attr.core.pictures import decode_picture, open_picture

RADIANCE_SUFFIXES = (".hdr", ".exr")  # checked when the library was opened


def load_image(stage: BlenderScene, path: str, what: str, *, is_colour: bool, sha256: str | None = None) -> Any:
    """Return the Blender image of a file; the second call for a file returns the first one's.

    ``is_colour``: sRGB values, else numbers. ``sha256``: of a user's file; None for one of a bank. Raises DatasetError
    naming ``what``.
    """
    key = ("image", path)
    if key not in stage.shared:
        file = Path(path)
        if not file.is_file():
            raise DatasetError(f"{what}: there is no file {path}")
        image = _of_bank(stage.bpy, file, what) if sha256 is None else _of_user(stage.bpy, file, what, sha256)
        image.colorspace_settings.name = "sRGB" if is_colour else "Non-Color"
        image.alpha_mode = "CHANNEL_PACKED"  # colour is never multiplied by alpha
        stage.shared[key] = image
    return stage.shared[key]


def _of_bank(bpy: Any, path: Path, what: str) -> Any:
    """Return the image of a bank's file; DatasetError if it is damaged."""
    try:
        with open_picture(path) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{what}: {path} is damaged ({error}); make the material bank again") from error
    return _opened(bpy, path, what)


def _of_user(bpy: Any, path: Path, what: str, sha256: str) -> Any:
    """Return the image of a user's file, read by Blender itself if it decodes it as ``core/pictures.py`` does."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DatasetError(f"{what}: {path} is not the file the scene was made with (its SHA-256 differs)")
    if path.suffix.lower() not in RADIANCE_SUFFIXES:
        decoded = decode_picture(content, f"{what}: {path}", "convert or replace it")
        if not decoded.is_as_stored:
            return _made(bpy, path.name, np.asarray(decoded.image.convert("RGBA")))
    image = _opened(bpy, path, what)
    if not all(image.size) or not image.has_data:  # Blender reads the file only when asked for the size
        raise DatasetError(f"{what}: Blender cannot read {path}; convert or replace it")
    image.buffers_free()
    return image


def check_own_image(stage: BlenderScene, image: Any) -> None:
    """Raise RenderError if an image that a scan's file brought (None: no image) cannot be decoded."""
    if image is not None and (not all(image.size) or not image.has_data):  # read when asked for the size
        scan = stage.factor("geometry").scan.name
        raise RenderError(f"Blender cannot read the texture {image.name} of the mesh {scan}; convert or replace it")


def _opened(bpy: Any, path: Path, what: str) -> Any:
    try:
        return bpy.data.images.load(str(path), check_existing=True)
    except RuntimeError as error:
        raise DatasetError(f"{what}: Blender cannot open {path} ({error})") from error


def _made(bpy: Any, name: str, rgba: np.ndarray) -> Any:
    """Return a Blender image of these pixels (uint8 H×W×4, row 0 at the top), kept in the .blend file if one is saved.

    For CMYK, EXIF-turned and other pictures that Blender would show in other colours or on their side.
    """
    image = bpy.data.images.new(name, rgba.shape[1], rgba.shape[0], alpha=True)
    image.pixels.foreach_set((rgba[::-1] / np.float32(255)).astype(np.float32).ravel())
    image.pack()
    return image
