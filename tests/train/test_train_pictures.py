"""Folders and files of pictures for prediction: order, sizes, decoding, what is left out or refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from predicted_pictures import NAMES, colours, picture_folder

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.data.images import Picture, image_files, load_picture, load_pictures, natural_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "pictures")


def test_files_come_in_natural_order_without_others(folder: Path) -> None:
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "sub.png").mkdir()
    assert [path.name for path in image_files(folder).used] == ["2.png", "10.jpg", "a1.webp"]
    assert [path.name for path in image_files(folder, stride=2).used] == ["2.png", "a1.webp"]
    assert [path.name for path in image_files(folder, max_views=1).used] == ["2.png"]
    names = ["x10y2", "x9", "X10y10", "x10y2b", "", "7", "x"]
    assert sorted(names, key=natural_key) == ["", "7", "x", "x9", "x10y2", "x10y2b", "X10y10"]


@pytest.mark.parametrize(
    ("size_wh", "mode", "expected_hw", "scale_xy", "offset_xy"),
    [
        ((80, 60), "crop", (42, 56), (56 / 80, 42 / 60), (0, 0)),
        ((60, 80), "crop", (56, 56), (56 / 60, 70 / 80), (0, -7)),  # 74.7 px high, rounded to 70, cut to 56
        ((80, 60), "pad", (56, 56), (56 / 80, 42 / 60), (0, 7)),
        ((60, 80), "pad", (56, 56), (42 / 60, 56 / 80), (7, 0)),
        ((56, 56), "crop", (56, 56), (1.0, 1.0), (0, 0)),
        ((560, 20), "crop", (14, 56), (0.1, 14 / 20), (0, 0)),  # never less than one patch
    ],
)
def test_sizes(
    tmp_path: Path,
    size_wh: tuple[int, int],
    mode: str,
    expected_hw: tuple[int, int],
    scale_xy: tuple[float, float],
    offset_xy: tuple[int, int],
) -> None:
    Image.fromarray(colours(0, size_wh[1], size_wh[0])).save(tmp_path / "x.png")
    picture = load_picture(tmp_path / "x.png", mode, 56, 14)
    assert picture.rgb.shape == (*expected_hw, 3) and picture.visible.shape == expected_hw
    assert picture.scale_xy == pytest.approx(scale_xy) and picture.offset_xy == offset_xy
    assert picture.file_size_wh == size_wh
    padding = 56 * 56 - 56 * 42 if mode == "pad" else 0
    assert (~picture.visible).sum() == padding
    assert (picture.rgb[~picture.visible] == 255).all()


def test_a_spot_is_found_where_scale_and_offset_say(tmp_path: Path) -> None:
    for mode, size_hw in (("pad", (60, 90)), ("crop", (120, 60))):
        pixels = np.zeros((*size_hw, 3), np.uint8)
        pixels[50:56, 20:26] = 255  # centre at (23, 53)
        Image.fromarray(pixels).save(tmp_path / "x.png")
        picture = load_picture(tmp_path / "x.png", mode, 84, 14)
        weight = picture.rgb[..., 0].astype(float) * picture.visible
        rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
        found = ((weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum())
        expected = np.array([23, 53]) * picture.scale_xy + picture.offset_xy
        assert found == pytest.approx(expected, abs=0.1)


def test_bicubic_resize_equals_pillow(tmp_path: Path) -> None:
    pixels = colours(1, 60, 80)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    expected = np.asarray(Image.fromarray(pixels).resize((56, 42), Image.Resampling.BICUBIC))
    assert np.array_equal(load_picture(tmp_path / "x.png", "crop", 56, 14).rgb, expected)


def test_transparency_becomes_white_and_is_not_visible(tmp_path: Path) -> None:
    rgba = np.zeros((28, 28, 4), np.uint8)
    rgba[:14, :, 0], rgba[:14, :, 3] = 200, 255
    rgba[14:, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "x.png")
    picture = load_picture(tmp_path / "x.png", "crop", 28, 14)
    assert (picture.rgb[:14] == [200, 0, 0]).all() and (picture.rgb[14:] == 255).all()
    assert picture.visible[:14].all() and not picture.visible[14:].any()


def test_orientation_and_unusual_kinds_of_pixels(tmp_path: Path) -> None:
    pixels = colours(2, 28, 42)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    turned = load_picture(tmp_path / "turned.png", "crop", 28, 14)
    assert turned.file_size_wh == (28, 42) and turned.rgb.shape == (28, 28, 3)
    assert np.array_equal(turned.rgb, np.rot90(pixels, -1)[7:35])
    grey = np.arange(784, dtype=np.uint16).reshape(28, 28) * 83
    Image.fromarray(grey).save(tmp_path / "grey16.png")
    assert np.array_equal(load_picture(tmp_path / "grey16.png", "crop", 28, 14).rgb[..., 1], np.rint(grey / 257))
    for kind in ("L", "LA", "P", "1", "RGBA"):
        Image.fromarray(pixels).convert(kind).save(tmp_path / f"{kind}.png")
        assert load_picture(tmp_path / f"{kind}.png", "crop", 42, 14).visible.all()
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert load_picture(tmp_path / "cmyk.jpg", "crop", 42, 14).rgb.shape == (28, 42, 3)


def test_what_is_left_out_of_a_folder_or_file_is_said(folder: Path, tmp_path: Path) -> None:
    for name in ("IMG_1.HEIC", "scan.tif", ".hidden.tif", "notes.txt"):
        (folder / name).write_bytes(b"")
    frames = [Image.fromarray(colours(seed, 60, 80)) for seed in (4, 5)]
    frames[0].save(folder / "z.webp", save_all=True, append_images=frames[1:], lossless=True)
    found = image_files(folder)
    assert [path.name for path in found.used] == ["2.png", "10.jpg", "a1.webp", "z.webp"]
    assert f"left out of {folder}: IMG_1.HEIC, scan.tif (only .png" in found.note and "notes" not in found.note
    picture = load_picture(folder / "z.webp", "crop", 84, 14)
    assert picture.frames == 2 and picture.file_size_wh == (80, 60)
    only_others = tmp_path / "raw"
    only_others.mkdir()
    (only_others / "a.dng").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no picture in it .*, but a\.dng \(only .* are read; convert"):
        image_files(only_others)


def test_bad_pictures_name_themselves(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        image_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty.*no picture"):
        image_files(tmp_path / "empty")
    with pytest.raises(ConfigError, match="not a multiple of the patch size 14: use"):
        load_picture(folder / NAMES[0], "crop", 57, 14)
    with pytest.raises(ConfigError, match="mode=stretch"):
        load_picture(folder / NAMES[0], "stretch", 56, 14)
    with pytest.raises(DatasetError, match=r"gone\.png is missing"):
        load_picture(folder / "gone.png", "crop", 56, 14)
    for name, damage in (
        ("2.png", lambda b: b[: len(b) // 2]),
        ("10.jpg", lambda b: b[:300]),
        ("a1.webp", lambda b: b[: len(b) // 2]),
    ):
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
        with pytest.raises(DatasetError, match=name.replace(".", r"\.")):
            load_picture(folder / name, "crop", 56, 14)


def test_mixed_sizes_are_refused_unless_padded(folder: Path) -> None:
    Image.fromarray(colours(9, 80, 60)).save(folder / "upright.png")
    with pytest.raises(ConfigError, match=r"2\.png becomes 56×42, upright\.png becomes 56×56.*mode=pad"):
        load_pictures(image_files(folder), "crop", 56, 14)
    assert len(load_pictures(image_files(folder), "pad", 56, 14)) == 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_as_pillow_reads_it(tmp_path: Path, orientation: int) -> None:
    pixels = Image.fromarray(colours(3, 28, 28))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as file:
        expected = np.asarray(ImageOps.exif_transpose(file))
    assert np.array_equal(load_picture(tmp_path / "x.png", "crop", 28, 14).rgb, expected)


@pytest.mark.parametrize(("place", "value"), [(17, 0x42), (43, 1)])  # a number written as text, a fraction as a byte
def test_other_tags_of_a_picture_do_not_matter(tmp_path: Path, place: int, value: int) -> None:
    exif = Image.Exif()
    exif[0x0110], exif[0x0112], exif[0x011A] = "camera", 6, 72.0
    content = bytearray(exif.tobytes())
    content[place] = value
    pixels = colours(3, 28, 28)
    Image.fromarray(pixels).save(tmp_path / "odd.png", exif=bytes(content))
    with Image.open(tmp_path / "odd.png") as file, pytest.raises((struct.error, TypeError)):
        ImageOps.exif_transpose(file)
    assert np.array_equal(load_picture(tmp_path / "odd.png", "crop", 28, 14).rgb, np.rot90(pixels, -1))


def test_picture_is_a_value() -> None:
    picture = Picture(Path("x"), np.zeros((1, 1, 3)), np.ones((1, 1), bool), (1, 1), (1.0, 1.0), (0, 0))
    with pytest.raises(AttributeError):
        picture.path = Path("y")  # type: ignore[misc]


def test_a_few_bytes_do_not_ask_for_all_memory(tmp_path: Path) -> None:
    file = tmp_path / "thin.png"
    Image.new("RGB", (1, 60_000)).save(file)
    with pytest.raises(DatasetError, match=r"thin.png is 1×60000 px, more than 100 times as high as wide"):
        load_picture(file, "crop", 518, 14)
    assert load_picture(file, "pad", 56, 14).rgb.shape == (56, 56, 3)
