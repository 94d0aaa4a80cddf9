"""From linear radiance to display bytes: our own arithmetic, so that no Blender version's colour management matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from megasynth_attr.core.srgb import srgb_from_linear


def display_rgba(
    premultiplied: np.ndarray, exposure_stops: float, developers: Sequence[Callable[[np.ndarray], np.ndarray]] = ()
) -> np.ndarray:
    """Return uint8 H×W×4 with straight alpha for float H×W×4 linear RGBA with premultiplied alpha.

    Colour is divided by alpha, scaled by 2^exposure_stops, developed (each of ``developers`` maps H×W×3 to another),
    clipped, sRGB encoded and rounded half up; where alpha rounds to 0 the colour is 0 too.
    """
    encoded = np.zeros(premultiplied.shape, dtype=np.uint8)
    covered = premultiplied[..., 3] > 0  # most of an object-centred picture is empty
    pixels = premultiplied[covered]
    alpha = np.clip(pixels[:, 3:], 0.0, 1.0)
    linear = pixels[:, :3] * (np.float32(2.0**exposure_stops) / alpha)
    if developers:
        picture = np.zeros((*premultiplied.shape[:2], 3), dtype=np.float32)
        picture[covered] = linear
        for develop in developers:
            picture = develop(picture)
        linear = picture[covered]
    values = np.concatenate([srgb_from_linear(linear), alpha], axis=1).astype(np.float32)
    values = (values * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    values[values[:, 3] == 0] = 0
    encoded[covered] = values
    return encoded
