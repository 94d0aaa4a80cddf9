"""Pictures that were damaged in thousands of ways: decoded, or a typed error; quickly, and without asking for the whole
memory."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.exr import ExrError, decode_exr, encode_exr, text_attributes
from megasynth_attr.core.pictures import decode_levels, decode_picture, decode_whole_numbers, read_content
from megasynth_attr.dataset.images import read_depth, read_vectors
from megasynth_attr.farm.library import read_radiance

INPUTS = 2000
MOST_BYTES = 2**30  # what Pillow itself allows: 179 million pixels
NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**16, 12, 255)
GREY = np.arange(20 * 24, dtype=np.float32).reshape(20, 24)
BYTES = np.arange(20 * 24 * 4, dtype=np.uint32).reshape(20, 24, 4).astype(np.uint8)


def picture(array: np.ndarray, kind: str, **options: object) -> bytes:
    with io.BytesIO() as buffer:
        image = Image.fromarray(array)
        (image.convert("P") if options.pop("palette", False) else image).save(buffer, kind, **options)
        return buffer.getvalue()


def flat_hdr() -> bytes:
    return b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +X 8\n" + bytes(range(128))


def coded_hdr() -> bytes:
    row = b"\x02\x02\x00\x10" + b"".join(bytes([4, 1, 2, 3, 4, 128 + 12, 9]) for _ in range(4))
    return b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 8 +X 16\n" + row * 8


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Return the bytes with one to three of them, or four in a row, changed, cut off, left out or added."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.randrange(min(len(changed), draw.choice((64, 400, 10**6))) or 1)
        kind = draw.randrange(6)
        if kind < 2:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif kind < 4:
            changed[at : at + 4] = struct.pack(draw.choice("<>") + "i", draw.choice(NUMBERS))
        elif kind == 4:
            changed = changed[:at] if draw.random() < 0.5 else changed[:at] + changed[at + draw.randrange(40) :]
        else:
            changed[at:at] = draw.randbytes(draw.randrange(9))
    return bytes(changed)


def of_file(read: Callable[[Path], object], suffix: str) -> Callable[[bytes, Path], object]:
    def decoded(content: bytes, folder: Path) -> object:
        file = folder / f"x{suffix}"
        file.write_bytes(content)
        return read(file)

    return decoded


EXRS = [encode_exr({"Z": GREY}), encode_exr({axis: GREY.astype(np.float16) for axis in "XYZ"}, "zips")]
EXRS += [encode_exr({axis: GREY for axis in "RGB"}, "none")]
PNGS = [picture(BYTES, "PNG"), picture(BYTES[..., :3], "PNG", palette=True), picture(GREY.astype(np.uint16), "PNG")]
PNGS += [picture(BYTES[..., :3], "JPEG"), picture(BYTES, "WEBP"), picture(GREY / 480, "TIFF"), picture(BYTES, "GIF")]
CASES: dict[str, tuple[list[bytes], list[Callable[[bytes, Path], object]]]] = {
    "exr": (
        EXRS,
        [
            lambda content, _: decode_exr(content),
            lambda content, _: text_attributes(content),
            of_file(read_depth, ".exr"),
            of_file(read_vectors, ".exr"),
        ],
    ),
    "png": (
        PNGS,
        [
            lambda content, _: decode_picture(content, "x", "advice"),
            lambda content, _: decode_levels(content, "x", "advice"),
            lambda content, _: decode_whole_numbers(content, "x", "advice"),
        ],
    ),
    "hdr": ([flat_hdr(), coded_hdr()], [of_file(read_radiance, ".hdr")]),
}


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks, and arithmetic with numbers that are not finite
@pytest.mark.parametrize("kind", CASES)
def test_damaged_pictures_are_refused_or_read(kind: str, tmp_path: Path) -> None:
    originals, readers = CASES[kind]
    draw, slowest = random.Random(kind), 0.0
    for original in originals:  # the pictures themselves are fine
        assert any(_reads(read, original, tmp_path) for read in readers)
    tracemalloc.start()
    for number in range(INPUTS):
        content = damaged(draw.choice(originals), draw)
        began = time.process_time()
        with contextlib.suppress(DatasetError, ExrError):
            readers[number % len(readers)](content, tmp_path)
        slowest = max(slowest, time.process_time() - began)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert slowest < 10 and most < MOST_BYTES
    assert {path.name for path in tmp_path.iterdir()} <= {"x.exr", "x.hdr"}


def _reads(read: Callable[[bytes, Path], object], content: bytes, folder: Path) -> bool:
    try:
        read(content, folder)
    except (DatasetError, ExrError):
        return False
    return True


def test_a_device_is_not_read() -> None:
    with pytest.raises(DatasetError, match="it is no regular file"):
        read_content(Path("/dev/zero"), "advice")
