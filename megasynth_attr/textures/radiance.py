"""Reading Radiance ``.hdr`` (RGBE) pictures: every maintained Python package that does brings a large library.

Format: G. Ward, "Real pixels", Graphics Gems II; run-length coding per scanline and channel.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.pictures import read_content

_LONGEST_RUN = 127  # pixels that two bytes can stand for


def read_hdr(path: Path) -> np.ndarray:
    """Return H×W×3 float32 linear radiance; DatasetError if the file is not a complete RGBE picture."""
    data = read_content(path, "replace it or remove it from the folder")
    header = re.match(rb"#\?(RADIANCE|RGBE).*?\n\n-Y (\d{1,9}) \+X (\d{1,9})\n", data, re.DOTALL)
    if header is None or b"32-bit_rle_rgbe" not in header.group(0):
        raise DatasetError(f"{path} is not a Radiance RGBE picture with the usual orientation (-Y +X)")
    height, width = int(header.group(2)), int(header.group(3))
    if not height or not width:
        raise DatasetError(f"{path} has no pixels ({width}×{height})")
    rgbe = _decode(np.frombuffer(data, np.uint8, offset=header.end()), height, width, path)
    scale = np.where(rgbe[..., 3:] > 0, np.ldexp(1.0, rgbe[..., 3:].astype(np.int32) - 136), 0.0)
    return (rgbe[..., :3] * scale).astype(np.float32)


def _decode(data: np.ndarray, height: int, width: int, path: Path) -> np.ndarray:
    """Return H×W×4 bytes: flat when the first scanline carries no run-length marker, else run by run."""
    is_coded = len(data) >= 4 and bytes(data[:2]) == b"\x02\x02" and (int(data[2]) << 8 | int(data[3])) == width
    if not is_coded:
        if len(data) < height * width * 4:
            raise DatasetError(
                f"{path} is cut off ({len(data)} bytes of pixels, {height * width * 4} expected), or packed in the "
                "format's old run-length code, which is not read; save it again"
            )
        return data[: height * width * 4].reshape(height, width, 4)
    if len(data) < height * (4 + 4 * 2 * -(-width // _LONGEST_RUN)):  # before memory is asked for
        raise DatasetError(f"{path} is cut off: {len(data)} bytes cannot hold {width}×{height} pixels")
    rows, at = np.empty((height, 4, width), np.uint8), 0
    try:
        for row in rows:
            at += 4  # the marker
            for channel in row:
                filled = 0
                while filled < width:
                    count = int(data[at])
                    if count > 128:  # a run of one value
                        count -= 128
                        channel[filled : filled + count] = data[at + 1]
                        at += 2
                    else:
                        channel[filled : filled + count] = data[at + 1 : at + 1 + count]
                        at += 1 + count
                    filled += count
    except (IndexError, ValueError):
        raise DatasetError(f"{path} is cut off or damaged: its run-length code ends too early") from None
    return rows.transpose(0, 2, 1)
