"""OpenEXR files in NumPy and zlib: scanline images, one part or several, float16, float32 or uint32 channels.

The ``OpenEXR`` package cannot be used inside every Blender: in a Blender that is linked with the system's libOpenEXR
(Debian's 3.4) its C functions resolve to those of the system's other version, and reading crashes the process. So
whatever may run inside Blender uses this module, and the package serves elsewhere: rarer compressions, and speed. It
reads what Blender writes and writes what every EXR reader reads.
Format: https://openexr.com/en/latest/OpenEXRFileLayout.html
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAGIC = b"\x76\x2f\x31\x01"
MULTI_PART, UNSUPPORTED = 0x1000, 0xA00  # flags in the version word; unsupported: tiles, deep data
PIXEL_TYPES: dict[int, np.dtype] = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
LINES_PER_CHUNK = {"none": 1, "zips": 1, "zip": 16}
COMPRESSION_CODES = {"none": 0, "zips": 2, "zip": 3}
_MOST_PACKED = 1100  # bytes that one byte of zlib's can stand for, and a little more
ZLIB_LEVEL = 4  # level 6 takes half as long again for 1 % fewer bytes


class ExrError(ValueError):
    """The bytes are not an EXR image of the kinds this module reads."""


class _TooLarge(ExrError):
    """They claim to be more than they can hold."""


@dataclass(frozen=True)
class _Part:
    name: str
    channels: tuple[tuple[str, np.dtype], ...]  # in file order (alphabetical)
    compression: str
    width: int
    height: int
    first_row: int

    @property
    def row_bytes(self) -> int:
        return self.width * sum(kind.itemsize for _, kind in self.channels)

    @property
    def chunk_count(self) -> int:
        return -(-self.height // LINES_PER_CHUNK[self.compression])


def decode_exr(data: bytes) -> dict[str, np.ndarray]:
    """Return H×W arrays by channel name, row 0 at the top; raises ExrError.

    In a file with several parts a channel ``Z`` of the part ``ViewLayer.Depth`` is called ``ViewLayer.Depth.Z``; a
    channel whose own name begins with the part's keeps it.
    """
    try:
        parts, position, is_multi_part = _read_headers(data)
        _require_bytes_for(parts, data)
        images: dict[str, np.ndarray] = {}
        for part in parts:
            offsets = np.frombuffer(data, "<u8", part.chunk_count, position)
            if offsets.max() >= len(data):
                raise ExrError("cut off or damaged (a chunk lies beyond its end)")
            position += 8 * part.chunk_count
            rows = _read_rows(data, part, offsets, 12 if is_multi_part else 8)
            column = 0
            for channel, kind in part.channels:
                last = column + part.width * kind.itemsize
                images[_full_name(part.name, channel)] = np.ascontiguousarray(rows[:, column:last]).view(kind)
                column = last
    except (struct.error, ValueError, IndexError, KeyError, zlib.error) as error:
        raise error if isinstance(error, ExrError) else ExrError(f"cut off or damaged ({error})") from error
    return images


def encode_exr(channels: Mapping[str, np.ndarray], compression: str = "zip") -> bytes:
    """Return the bytes of a one-part EXR with these H×W float16, float32 or uint32 channels; equal arrays, equal bytes.

    ``compression`` is "none", "zips" (row by row) or "zip" (16 rows at a time).
    """
    codes = {kind: code for code, kind in PIXEL_TYPES.items()}
    names = sorted(channels)
    arrays = [np.ascontiguousarray(channels[n], channels[n].dtype.newbyteorder("<")) for n in names]
    (height, width), step = arrays[0].shape, LINES_PER_CHUNK[compression]
    if any(a.shape != (height, width) or a.dtype not in codes for a in arrays):
        raise ValueError(f"channels {names} must be H×W arrays of one size, float16, float32 or uint32")
    channel_list = b"".join(
        n.encode() + b"\0" + struct.pack("<iB3xii", codes[a.dtype], 0, 1, 1) for n, a in zip(names, arrays, strict=True)
    )
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    header = b"".join(
        _packed(*entry)
        for entry in (
            ("channels", "chlist", channel_list + b"\0"),
            ("compression", "compression", bytes([COMPRESSION_CODES[compression]])),
            ("dataWindow", "box2i", window),
            ("displayWindow", "box2i", window),
            ("lineOrder", "lineOrder", b"\0"),
            ("pixelAspectRatio", "float", struct.pack("<f", 1)),
            ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
            ("screenWindowWidth", "float", struct.pack("<f", 1)),
        )
    )
    head = MAGIC + struct.pack("<i", 2) + header + b"\0"
    rows = np.concatenate([a.view(np.uint8).reshape(height, -1) for a in arrays], axis=1)
    chunks = []
    for first in range(0, height, step):
        packed = _compress(rows[first : first + step].ravel(), compression)
        chunks.append(struct.pack("<ii", first, len(packed)) + packed)
    start = len(head) + 8 * len(chunks)
    offsets = start + np.cumsum([0, *(len(c) for c in chunks[:-1])])
    return head + offsets.astype("<u8").tobytes() + b"".join(chunks)


def _packed(name: str, kind: str, value: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def _full_name(part: str, channel: str) -> str:
    return f"{part}.{channel}" if part and not channel.startswith(f"{part}.") else channel


def _read_headers(data: bytes) -> tuple[list[_Part], int, bool]:
    """Return the parts, the position of the first offset table, and whether chunks carry a part number."""
    if data[:4] != MAGIC:
        raise ExrError("not an EXR file")
    (version,) = struct.unpack_from("<i", data, 4)
    if version & UNSUPPORTED:
        raise ExrError("tiled or deep EXR files are not supported")
    is_multi_part, position, parts = bool(version & MULTI_PART), 8, []
    while True:
        attributes, position = _attributes(data, position)
        if attributes:
            parts.append(_part({name: value for name, (_, value) in attributes.items()}))
        if not attributes or not is_multi_part:
            return parts, position, is_multi_part


def _require_bytes_for(parts: list[_Part], data: bytes) -> None:
    """Raise ExrError if the parts, which may share their bytes, would take more memory than these can stand for."""
    if sum(part.height * part.row_bytes for part in parts) > _MOST_PACKED * len(data):
        raise _TooLarge(f"{len(data)} bytes cannot hold {parts[-1].width}×{parts[-1].height} pixels")


def _attributes(data: bytes, position: int) -> tuple[dict[str, tuple[str, bytes]], int]:
    """Return one header's attributes, name → (type, value), and the position behind it."""
    attributes: dict[str, tuple[str, bytes]] = {}
    while data[position]:
        name, position = _text(data, position)
        kind, position = _text(data, position)
        (size,) = struct.unpack_from("<i", data, position)
        if size < 0:  # which would lead backwards, for ever
            raise ExrError("an attribute of negative size")
        position += 4 + size
        attributes[name] = kind, data[position - size : position]
    return attributes, position + 1


def _text(data: bytes, position: int) -> tuple[str, int]:
    end = data.index(b"\0", position)
    return data[position:end].decode(), end + 1


def _part(attributes: Mapping[str, bytes]) -> _Part:
    x_min, y_min, x_max, y_max = struct.unpack("<4i", attributes["dataWindow"])
    code = attributes["compression"][0]
    names = [name for name, number in COMPRESSION_CODES.items() if number == code]
    if not names:
        raise ExrError(f"compression method {code} is not supported, only none, ZIPS and ZIP")
    channels: list[tuple[str, np.dtype]] = []
    position, listed = 0, attributes["channels"]
    while listed[position]:
        name, position = _text(listed, position)
        (kind,) = struct.unpack_from("<i", listed, position)
        channels.append((name, PIXEL_TYPES[kind]))
        position += 16
    part_name = attributes.get("name", b"").rstrip(b"\0").decode()
    if not channels or x_max < x_min or y_max < y_min:
        raise ExrError("it has no pixels")
    return _Part(part_name, tuple(channels), names[0], x_max - x_min + 1, y_max - y_min + 1, y_min)


def _read_rows(data: bytes, part: _Part, offsets: np.ndarray, head: int) -> np.ndarray:
    """Return H × row bytes; ``head`` bytes before every chunk's data hold (part number,) first row, size."""
    buffer = np.frombuffer(data, np.uint8)
    stride, first = part.row_bytes + head, int(offsets[0])
    if part.compression == "none" and np.all(np.diff(offsets.astype(np.int64)) == stride):  # as Blender writes it
        return buffer[first : first + stride * part.height].reshape(part.height, stride)[:, head:]
    rows, step = np.zeros((part.height, part.row_bytes), np.uint8), LINES_PER_CHUNK[part.compression]
    for offset in offsets.tolist():
        row, size = struct.unpack_from("<ii", data, offset + head - 8)
        row -= part.first_row
        target = rows[row : row + step]
        packed = data[offset + head : offset + head + size]
        target[:] = _decompress(packed, part.compression, target.size).reshape(target.shape)
    return rows


def _compress(raw: np.ndarray, compression: str) -> bytes:
    """Return a chunk: even bytes before odd ones, then differences, deflated; stored raw where that is shorter."""
    if compression == "none":
        return raw.tobytes()
    split = np.concatenate([raw[0::2], raw[1::2]])
    delta = split.copy()
    delta[1:] -= split[:-1]
    delta[1:] += 128  # bytes wrap around
    packed = zlib.compress(delta, ZLIB_LEVEL)
    return packed if len(packed) < raw.size else raw.tobytes()


def _decompress(packed: bytes, compression: str, size: int) -> np.ndarray:
    if compression == "none" or len(packed) == size:
        return np.frombuffer(packed, np.uint8)
    delta = np.frombuffer(zlib.decompressobj().decompress(packed, size), np.uint8).copy()
    delta[1:] -= 128
    split = np.cumsum(delta, dtype=np.uint8)
    raw, half = np.empty(size, np.uint8), -(-size // 2)
    raw[0::2], raw[1::2] = split[:half], split[half:]
    return raw


def decode_intact_exr(content: bytes) -> dict[str, np.ndarray]:
    """Return what ``decode_exr`` does, three times as fast, by the OpenEXR package. Not inside Blender.

    For bytes whose checksum says that they are those of ``encode_exr``: of damaged files the package prints its own
    complaints, and it repairs some that ``decode_exr`` refuses. A stranger's checksum may lie: ExrError, then, too.
    """
    import OpenEXR

    try:
        _require_bytes_for(_read_headers(content)[0], content)
        with OpenEXR.File(io.BytesIO(content), separate_channels=True, num_threads=0) as image:
            return {name: channel.pixels for name, channel in image.channels().items()}
    except Exception as error:  # its C++ code raises whatever it likes
        decode_exr(content)  # which says what is wrong
        raise ExrError(f"OpenEXR: {error}") from error


def decode_rarer_exr(content: bytes, path: Path) -> dict[str, np.ndarray]:
    """Return what ``decode_exr`` does of the file at ``path``, of any compression that the OpenEXR package knows."""
    try:
        return decode_exr(content)
    except _TooLarge:
        raise
    except ExrError as ours:
        bpy = sys.modules.get("bpy")
        if bpy is not None and bpy.app.binary_path:  # empty in the bpy module, where the package loads
            raise ExrError(f"{ours}; save it with ZIP compression, or run python -m megasynth_attr.pipeline") from None
        import OpenEXR

        try:
            with OpenEXR.File(str(path), separate_channels=True) as image:
                if not all([image.parts, *(part.channels for part in image.parts)]):  # it only prints what is wrong
                    raise ExrError("a part of it cannot be read")
                several = len(image.parts) > 1
                return {
                    _full_name(part.name() if several else "", name): channel.pixels
                    for part in image.parts
                    for name, channel in part.channels.items()
                }
        except Exception as theirs:  # its C++ code raises whatever it likes on damaged files
            raise ExrError(f"{ours}; OpenEXR: {theirs}") from theirs


def text_attributes(data: bytes) -> dict[str, str]:
    """Return the string attributes of a file's first header (name → text); raises ExrError."""
    try:
        attributes, _ = _attributes(data, 8)
    except (struct.error, ValueError, IndexError) as error:
        raise ExrError(f"cut off or damaged ({error})") from error
    return {name: value.decode(errors="replace") for name, (kind, value) in attributes.items() if kind == "string"}
