"""Image files into Blender, each once, and never one that cannot be read: Cycles would paint it magenta and go on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from megasynth_attr.core.errors import DatasetError

if TYPE_CHECKING:
    from megasynth_attr.blender.build import Stage


def load_image(stage: Stage, path: str, what: str, *, is_colour: bool, sha256: str | None = None) -> Any:
    """Return the Blender image of a file; the second call for a file returns the first one's.

    ``is_colour``: sRGB values, else numbers. ``sha256``: what the file must be. Raises DatasetError naming ``what``.
    """
    key = ("image", path)
    if key not in stage.shared:
        _check_file(Path(path), what, sha256)
        try:
            image = stage.bpy.data.images.load(path, check_existing=True)
        except RuntimeError as error:
            raise DatasetError(f"{what}: Blender cannot open {path} ({error})") from error
        if sha256 is not None:  # any file of the user's; those of a bank have been checked just now
            _check_pixels(image, path, what)
        image.colorspace_settings.name = "sRGB" if is_colour else "Non-Color"
        image.alpha_mode = "CHANNEL_PACKED"  # colour is never multiplied by alpha
        stage.shared[key] = image
    return stage.shared[key]


def _check_file(path: Path, what: str, sha256: str | None) -> None:
    """Raise DatasetError unless the file is there and, by its checksums or ``sha256``, whole."""
    if not path.is_file():
        raise DatasetError(f"{what}: there is no file {path}")
    if sha256 is None:
        try:
            with Image.open(path) as image:
                image.verify()
        except (OSError, SyntaxError, ValueError) as error:
            raise DatasetError(f"{what}: {path} is damaged ({error}); make the material bank again") from error
    elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise DatasetError(f"{what}: {path} is not the file the scene was made with (its SHA-256 differs)")


def _check_pixels(image: Any, path: str, what: str) -> None:
    """Raise DatasetError if Blender finds no pixels in the file; it only looks when asked for the size."""
    if not all(image.size) or not image.has_data:
        raise DatasetError(f"{what}: Blender cannot read {path}; convert or replace it")
    image.buffers_free()
