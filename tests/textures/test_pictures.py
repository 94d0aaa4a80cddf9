"""Picture folders, and the portraits that ship."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from portraits import draw_portrait, read_portraits

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.textures.pictures import list_pictures

SHIPPED = resource_dir("assets") / "pictures"
PORTRAITS = read_portraits(SHIPPED / "portraits.yaml")


def _picture(path: Path, size: tuple[int, int] = (20, 10)) -> None:
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    Image.fromarray(pixels).save(path)


def test_pictures_are_listed_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.webp", "notes.txt", ".hidden.png"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("x")
        else:
            _picture(tmp_path / name)
    found = list_pictures(tmp_path)
    assert [(r.name, r.path.name) for r in found] == [("a", "a.JPG"), ("b", "b.png"), ("c", "c.webp")]
    assert all((r.width_px, r.height_px) == (20, 10) for r in found)
    assert found[1].sha256 == hashlib.sha256((tmp_path / "b.png").read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_broken_picture_is_named(tmp_path: Path, suffix: str) -> None:
    _picture(tmp_path / "good.png")
    bad = tmp_path / f"bad.{suffix}"
    _picture(bad, (200, 100))
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    with pytest.raises(DatasetError, match=rf"bad\.{suffix}"):
        list_pictures(tmp_path)
    bad.write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=rf"bad\.{suffix}.*replace it"):
        list_pictures(tmp_path)


def test_missing_empty_and_ambiguous_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        list_pictures(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="has no"):
        list_pictures(tmp_path)
    _picture(tmp_path / "a.png")
    _picture(tmp_path / "a.jpg")
    with pytest.raises(DatasetError, match="same name"):
        list_pictures(tmp_path)


def test_pictures_are_seen_upright_and_others_are_named(tmp_path: Path) -> None:
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    Image.new("CMYK", (20, 10)).save(tmp_path / "a.jpg", exif=on_its_side)
    (tmp_path / "b.heic").touch()
    with pytest.warns(UserWarning, match=r"left out b\.heic \(only .png"):
        (record,) = list_pictures(tmp_path)
    assert (record.width_px, record.height_px) == (10, 20)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DatasetError, match=r"has no .*\.webp file but b\.heic"):
        list_pictures(tmp_path)


def test_the_shipped_portraits() -> None:
    found = list_pictures(SHIPPED)
    assert [r.name for r in found] == [who.name for who in PORTRAITS]
    for record in found:
        assert (record.width_px, record.height_px) == (360, 480)
        assert record.path.stat().st_size < 60_000
        pixels = np.asarray(Image.open(record.path).convert("RGB")).astype(float)
        assert np.abs(pixels - pixels[:, ::-1]).mean() > 8  # a mirrored one would be seen


def test_the_script_draws_what_ships() -> None:
    who = PORTRAITS[1]
    shipped = np.asarray(Image.open(SHIPPED / f"{who.name}.jpg").convert("RGB"))
    assert np.abs(np.asarray(draw_portrait(who)).astype(float) - shipped).mean() < 2.0
