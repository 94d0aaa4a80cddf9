"""A short looping GIF of one trajectory, small enough for a README."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from megasynth_attr.core.pages.figures import PAPER_RGB
from megasynth_attr.report.images import resized

MAX_BYTES = 2_000_000
START_WIDTH = 360
SMALLEST_WIDTH = 96
FRAME_MS = 80  # a multiple of 10: GIF counts in hundredths of a second


def write_gif(path: Path, frames: Sequence[np.ndarray], there_and_back: bool, max_bytes: int = MAX_BYTES) -> int:
    """Write H×W×3 uint8 frames as an endlessly looping GIF of at most ``max_bytes`` and return its number of frames.

    ``there_and_back`` plays an open path forwards and then backwards, so that the loop does not jump. All frames
    share one palette (no flicker) and are not dithered (dither crawls from frame to frame, and doubles the size). If
    the file would be too large, its width is reduced until it fits or is 96 px.
    """
    height, width = frames[0].shape[:2]
    shown_width = START_WIDTH
    count = len(frames)
    order = [*range(count), *range(count - 2, 0, -1)] if there_and_back else list(range(count))
    while True:
        size = (shown_width, max(1, round(shown_width * height / width)))
        encoded = _encode([resized(f, *size) for f in frames], order)
        if len(encoded) <= max_bytes or shown_width <= SMALLEST_WIDTH:
            path.write_bytes(encoded)
            return len(order)
        # The size grows roughly with the area; 0.95 makes a second shrink unlikely.
        shrink = 0.95 * (max_bytes / len(encoded)) ** 0.5
        shown_width = max(SMALLEST_WIDTH, int(shown_width * shrink))


def _encode(frames: Sequence[np.ndarray], order: Sequence[int]) -> bytes:
    """Return the GIF that shows ``frames`` in ``order``, with the same at most 256 colours in all of them."""
    mosaic = Image.fromarray(np.concatenate([f[::3, ::3] for f in frames], axis=0))
    palette = mosaic.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    colours = np.array(palette.getpalette(), dtype=np.uint8).reshape(-1, 3)
    paper = np.abs(colours.astype(int) - PAPER_RGB).sum(axis=1).argmin()
    colours[paper] = PAPER_RGB
    palette.putpalette(colours.tobytes())
    pictures = []
    for frame in frames:
        index = np.array(Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE))
        index[np.all(frame == PAPER_RGB, axis=-1)] = paper  # exactly: Pillow's search is approximate
        pictures.append(Image.fromarray(index, mode="P"))
        pictures[-1].putpalette(colours.tobytes())
    first, *others = (pictures[i] for i in order)
    buffer = io.BytesIO()
    first.save(
        buffer,
        "GIF",
        save_all=True,
        append_images=others,
        palette=colours.tobytes(),  # once for all frames
        loop=0,
        duration=FRAME_MS,
        optimize=False,  # Pillow would renumber the colours of single frames
    )
    return buffer.getvalue()
