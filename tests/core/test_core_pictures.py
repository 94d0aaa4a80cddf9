"""Every colour mode that Pillow reads becomes the colours it means, or is refused by name."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.pictures import (
    Decoded,
    decode_levels,
    decode_picture,
    decode_whole_numbers,
    left_out,
    picture_files,
    read_picture,
)

RED, GREY = (255, 0, 0), (128, 128, 128)
ADVICE = "do something"
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))


def content(image: Image.Image, kind: str, **options: object) -> bytes:
    with io.BytesIO() as buffer:
        image.save(buffer, kind, **options)
        return buffer.getvalue()


def decoded(image: Image.Image, kind: str, **options: object) -> Decoded:
    return decode_picture(content(image, kind, **options), "x", ADVICE)


def test_no_picture_is_run_as_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""
    ran, program, file = tmp_path / "ran", tmp_path / "gs", tmp_path / "0000.png"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # not looked for yet
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DatasetError, match=r"0000\.png cannot be read as a picture"):
        read_picture(file, ADVICE)
    assert not ran.exists()
    with contextlib.suppress(OSError), Image.open(file) as image:
        image.load()
    assert ran.exists(), "Pillow no longer does so; then this test proves nothing"
    code = [path for part in ("megasynth_attr", "train") for path in (Path(__file__).parents[2] / part).rglob("*.py")]
    assert [path.name for path in code if "Image.open(" in path.read_text(encoding="utf-8")] == ["pictures.py"]


def flat(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (16, 8), colour)  # type: ignore[arg-type]


def palette(transparent: bool) -> Image.Image:
    image = flat("P", 1)
    image.putpalette([0, 0, 0, *RED])
    if transparent:
        image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (flat("1", 1), "PNG", {}, (255, 255, 255)),
        (flat("L", 128), "PNG", {}, GREY),
        (flat("L", 128), "JPEG", {}, GREY),
        (flat("L", 128), "PNG", {"transparency": 128}, (*GREY, 0)),
        (flat("LA", (128, 7)), "PNG", {}, (*GREY, 7)),
        (palette(transparent=False), "PNG", {}, RED),
        (palette(transparent=True), "PNG", {}, (*RED, 0)),
        (palette(transparent=True), "GIF", {}, (*RED, 0)),
        (flat("RGB", RED), "PNG", {"transparency": RED}, (*RED, 0)),
        (flat("RGBA", (*RED, 9)), "PNG", {}, (*RED, 9)),
        (flat("RGBA", (*RED, 99)), "WEBP", {"lossless": True}, (*RED, 99)),
        (flat("RGBX", (*RED, 0)), "TIFF", {}, RED),
        (flat("CMYK", (0, 255, 255, 0)), "JPEG", {"quality": 100}, RED),  # stored inverted, with Adobe's marker
        (flat("CMYK", (0, 0, 0, 127)), "JPEG", {"quality": 100}, GREY),
        (flat("CMYK", (0, 255, 255, 0)), "TIFF", {}, RED),  # not inverted
        (Image.new("RGB", (16, 8), RED).convert("YCbCr"), "TIFF", {}, RED),
        (flat("LAB", (136, 128, 128)), "TIFF", {}, None),
        (Image.fromarray(np.full((8, 16), 128 * 257, np.uint16)), "PNG", {}, GREY),
        (Image.fromarray(np.full((8, 16), 128 * 257, np.uint16)), "TIFF", {}, GREY),
        (Image.fromarray(np.full((8, 16), 128 * 257, ">u2")), "TIFF", {}, GREY),
        (Image.fromarray(np.full((8, 16), 0.5, np.float32)), "TIFF", {}, GREY),
    ],
)
def test_colours_are_what_they_mean(
    image: Image.Image, kind: str, options: dict[str, object], expected: tuple[int, ...] | None
) -> None:
    found = decoded(image, kind, **options).image
    # L* = 136/255 is 0.533: by the definition of L*, a luminance of 0.213 and sRGB's 0.499
    expected = expected or (127, 127, 127)
    assert found.mode == ("RGBA" if len(expected) == 4 else "RGB") and found.size == (16, 8)
    assert np.abs(np.asarray(found).astype(int) - expected).max() <= 2


def test_sixteen_bits_of_colour_are_read_by_their_high_bytes() -> None:
    rgb16 = np.full((8, 16, 3), (0xFF80, 0x8000, 0x0101), ">u2")
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 8, 16, 2, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in rgb16)
    png = header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert decode_picture(png, "x", ADVICE).image.getpixel((3, 3)) == (0xFF, 0x80, 0x01)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_sixteen_bits_are_scaled_to_the_nearest() -> None:
    grey = np.arange(0, 65536, 61, dtype=np.uint16)[None]
    found = np.asarray(decoded(Image.fromarray(grey), "PNG").image)
    assert np.array_equal(found[..., 1], np.rint(grey / 257))


@pytest.mark.parametrize(
    ("array", "kind", "scale"),
    [
        (np.array([[0, 100, 255]], np.uint8), "PNG", 255),
        (np.array([[0, 100, 255]], np.uint16), "PNG", 65535),  # dark, not to be amplified
        (np.array([[0, 100, 65535]], np.uint16), "TIFF", 65535),
        (np.array([[0, 0.25, 1]], np.float32), "TIFF", 1),
    ],
)
def test_levels_are_scaled_by_the_type_of_the_file(array: np.ndarray, kind: str, scale: float) -> None:
    found = decode_levels(content(Image.fromarray(array), kind), "x", ADVICE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, array / scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[0, 2.5]], np.float32), r"from 0 to 2\.5; they must be in 0 … 1"),
        (np.array([[0, np.nan]], np.float32), "must be in 0 … 1"),
        (np.array([[0, 70000]], np.int32), "whole numbers of 32 bits"),
    ],
)
def test_numbers_of_unknown_scale_are_refused(array: np.ndarray, words: str) -> None:
    for decode in (decode_levels, decode_picture):
        with pytest.raises(DatasetError, match=rf"x holds .*{words}.*{ADVICE}"):
            decode(content(Image.fromarray(array), "TIFF"), "x", ADVICE)


def test_whole_numbers_are_not_scaled() -> None:
    ids = np.array([[0, 3, 65535]], np.uint16)
    assert np.array_equal(decode_whole_numbers(content(Image.fromarray(ids), "PNG"), "x", ADVICE), ids)
    with pytest.raises(DatasetError, match="x has the colour mode RGB"):
        decode_whole_numbers(content(flat("RGB", RED), "PNG"), "x", ADVICE)


def test_only_plain_upright_pictures_are_as_stored() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    assert decoded(flat("RGB", RED), "PNG").is_as_stored and decoded(flat("L", 3), "JPEG").is_as_stored
    assert not decoded(flat("CMYK", (0, 0, 0, 0)), "JPEG").is_as_stored
    upright = decoded(flat("RGB", RED), "PNG", exif=turned)
    assert upright.image.size == (8, 16) and not upright.is_as_stored


def test_the_first_frame_of_several() -> None:
    frames = [flat("RGB", colour) for colour in (RED, GREY, (0, 0, 255))]
    for kind in ("PNG", "TIFF", "GIF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        found = decoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert found.image.getpixel((1, 1))[:3] == RED and found.frames == 3


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (b"", r"cannot identify image file\)"),  # nothing of Python's behind it
        (b"no picture", r"cannot identify image file\)"),
        (content(NOISE, "PNG")[:900], "cannot be read as a picture .*truncated"),
        (content(NOISE, "JPEG")[:900], "cannot be read as a picture .*truncated"),
        (content(NOISE, "WEBP")[:900], "cannot be read as a picture"),
        (b"P5 0 4 255\n", "x (has no pixels|cannot be read as a picture)"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(damaged: bytes, words: str) -> None:
    with pytest.raises(DatasetError, match=rf"(?s){words}.*; {ADVICE}"):
        decode_picture(damaged, "x", ADVICE)


def test_files_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match=rf"gone\.png is missing; {ADVICE}"):
        read_picture(tmp_path / "gone.png", ADVICE)
    with pytest.raises(DatasetError, match=rf"cannot be read \(Is a directory\); {ADVICE}"):
        read_picture(tmp_path, ADVICE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DatasetError, match="decompression bomb"):
        decoded(flat("RGB", RED), "PNG")


def test_what_a_folder_holds(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "c.heic", "d.TIF", ".e.tif", "f.txt"):
        (tmp_path / name).touch()
    (tmp_path / "g.tif").mkdir()
    read, others = picture_files(tmp_path)
    assert [path.name for path in read] == ["a.jpeg", "b.PNG"]
    assert left_out(others, "without ").startswith("without c.heic, d.TIF (only .png, .jpg, .jpeg, .webp are read")
    assert left_out([tmp_path / f"{i}.tif" for i in range(6)], "").startswith("0.tif, 1.tif, 2.tif, 3.tif and 2 more")
    assert left_out([], "without ") == ""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "WEBP"])
def test_a_turned_picture_is_turned_once_whatever_its_kind(kind: str, orientation: int) -> None:
    """Pillow turns TIFFs by itself while loading, and nothing else."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (24, 16))
    image.paste(RED, (0, 0, 24, 8))
    image.paste((0, 0, 255), (0, 8, 8, 16))
    exact = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    turned, expected = decoded(image, kind, exif=exif, **exact), decoded(image, "PNG", exif=exif)
    assert turned.is_as_stored == expected.is_as_stored == (orientation == 1)
    assert turned.image.size == expected.image.size
    assert np.abs(np.asarray(turned.image, float) - np.asarray(expected.image, float)).max() <= 8
