"""Our EXR files against the OpenEXR library, both ways, and against damage."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megasynth_attr.core.exr import ExrError, decode_exr, decode_intact_exr, encode_exr, text_attributes

COMPRESSIONS = {"none": OpenEXR.NO_COMPRESSION, "zips": OpenEXR.ZIPS_COMPRESSION, "zip": OpenEXR.ZIP_COMPRESSION}


def channels(height: int, width: int, smooth: bool, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.arange(height), np.arange(width)) / 7
    values = ramp if smooth else rng.normal(size=(height, width))
    return {
        "Z": values.astype(np.float32),
        "half": values.astype(np.float16),
        "id": rng.integers(0, 2**32, (height, width), dtype=np.uint32),
    }


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (16, 3), (37, 53), (1, 200), (200, 1)])
def test_the_library_reads_what_we_write(tmp_path: Path, compression: str, smooth: bool, size: tuple[int, int]) -> None:
    data = channels(*size, smooth)
    file = tmp_path / "ours.exr"
    file.write_bytes(encode_exr(data, compression))
    read = OpenEXR.File(str(file), separate_channels=True).channels()
    quickly = decode_intact_exr(file.read_bytes())
    for name, array in data.items():
        assert np.array_equal(read[name].pixels, array)
        assert np.array_equal(quickly[name], array) and quickly[name].dtype == array.dtype


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("smooth", [True, False])
def test_we_read_what_the_library_writes(tmp_path: Path, compression: str, smooth: bool) -> None:
    data = channels(37, 53, smooth)
    file = tmp_path / "theirs.exr"
    header = {"compression": COMPRESSIONS[compression], "type": OpenEXR.scanlineimage, "author": "somebody"}
    OpenEXR.File(header, dict(data)).write(str(file))
    read = decode_exr(file.read_bytes())
    assert set(read) == set(data)
    for name, array in data.items():
        assert np.array_equal(read[name], array) and read[name].dtype == array.dtype
    assert text_attributes(file.read_bytes())["author"] == "somebody"


def test_parts_are_told_apart_by_their_names(tmp_path: Path) -> None:
    data, file = channels(5, 4, True), tmp_path / "parts.exr"
    kinds = {"compression": OpenEXR.NO_COMPRESSION, "type": OpenEXR.scanlineimage}
    parts = [
        OpenEXR.Part({**kinds, "name": "first"}, {"Z": data["Z"]}),
        OpenEXR.Part({**kinds, "name": "second"}, {"second.Z": 2 * data["Z"]}),
    ]
    OpenEXR.File(parts).write(str(file))
    read = decode_exr(file.read_bytes())
    assert np.array_equal(read["first.Z"], data["Z"]) and np.array_equal(read["second.Z"], 2 * data["Z"])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(sorted(COMPRESSIONS)), st.booleans(), st.integers(0, 999)
)
def test_round_trip_is_exact_and_repeatable(height: int, width: int, compression: str, smooth: bool, seed: int) -> None:
    data = channels(height, width, smooth, seed)
    encoded = encode_exr(data, compression)
    assert encoded == encode_exr(dict(reversed(data.items())), compression)
    for name, array in decode_exr(encoded).items():
        assert np.array_equal(array, data[name])


def test_infinities_and_nans_survive() -> None:
    data = np.array([[np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40]], np.float32)
    for decode in (decode_exr, decode_intact_exr):
        assert decode(encode_exr({"Z": data}))["Z"].tobytes() == data.tobytes()


@given(st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
def test_a_file_that_is_cut_off_is_an_error(length: int) -> None:
    whole = encode_exr(channels(16, 16, False))
    with pytest.raises(ExrError):
        decode_exr(whole[: min(length, len(whole) - 1)])


def test_bytes_whose_checksum_lies_fail_as_others() -> None:
    whole = encode_exr(channels(16, 16, False))
    draw, refused = random.Random(0), 0
    for length in range(0, 300, 3):
        content = bytearray(whole)
        content[length] = draw.randrange(256)
        for damaged in (bytes(content), whole[:length]):
            try:
                decode_intact_exr(damaged)
            except ExrError:
                refused += 1
    assert refused > 120


def test_what_is_no_exr_is_an_error() -> None:
    for data in (b"", b"\x89PNG....", bytes(100)):
        with pytest.raises(ExrError):
            decode_exr(data)


def test_parts_that_share_their_bytes_ask_for_no_more_memory_than_others() -> None:
    one = encode_exr({"Z": np.zeros((800, 1024), np.float32)})
    count = 800 // 16  # of chunks
    begin = next(at for at in range(len(one)) if struct.unpack_from("<Q", one, at) == (at + 8 * count,))
    header, chunks = one[8:begin], bytes(4) + one[begin + 8 * count :]  # chunks begin with the number of their part

    def parts(number: int) -> bytes:
        head = one[:4] + struct.pack("<i", 0x1002) + number * header + b"\0"
        places = np.frombuffer(one, "<u8", count, begin) - begin + len(head) + 8 * count * (number - 1)
        return head + number * places.astype("<u8").tobytes() + chunks

    assert decode_exr(parts(1))["Z"].shape == (800, 1024)
    with pytest.raises(ExrError, match="bytes cannot hold 1024×800 pixels"):
        decode_exr(parts(9))


def test_other_compressions_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "piz.exr"
    header = {"compression": OpenEXR.PIZ_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"Z": channels(8, 8, True)["Z"]}).write(str(file))
    with pytest.raises(ExrError, match="compression"):
        decode_exr(file.read_bytes())


def test_arrays_of_unequal_size_or_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="H×W"):
        encode_exr({"a": np.zeros((2, 2), np.float32), "b": np.zeros((2, 3), np.float32)})
    with pytest.raises(ValueError, match="H×W"):
        encode_exr({"a": np.zeros((2, 2), np.float64)})
