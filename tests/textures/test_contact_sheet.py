"""The contact sheet: it shows every material, and its light comes from where it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from megasynth_attr.textures.contact_sheet import main, render_swatch
from megasynth_attr.textures.procedural.bank import write_bank
from megasynth_attr.textures.procedural.recipes import read_recipes, recipes_path

RECIPES = read_recipes(recipes_path())


def _maps(**changes: object) -> dict[str, np.ndarray]:
    values = {"basecolor": (160,) * 3, "normal": (128, 128, 255), "roughness": 200, "metallic": 0, "height": 0}
    return {name: np.full((16, 16, *np.shape(v)), v, np.uint8) for name, v in {**values, **changes}.items()}


def _light(maps: dict[str, np.ndarray]) -> np.ndarray:
    return render_swatch(maps, 1.0).astype(float).mean(axis=-1)


def test_a_plain_swatch_is_lit_from_the_upper_left() -> None:
    image = _light(_maps())
    assert image[2, 2] > image[13, 13] + 20 and np.allclose(image, image.T, atol=3)
    assert _light(_maps(normal=(128, 230, 200)))[13, 2] > image[13, 2] + 5  # towards +y: up, where the lamp is


def test_roughness_and_metal_show() -> None:
    shiny, dull = _light(_maps(roughness=80, metallic=255)), _light(_maps(roughness=250, metallic=255))
    assert np.ptp(shiny) > np.ptp(dull) + 20  # the lamp's reflection is small and bright
    red = render_swatch(_maps(basecolor=(200, 40, 40), roughness=80, metallic=255), 1.0)
    assert red[..., 0].min() > red[..., 2].max()  # a metal reflects in its own colour


def test_tiles_are_repeated() -> None:
    maps = _maps()
    maps["basecolor"][:, 0] = 20
    row = render_swatch(maps, 2.5)[20, :, 0].astype(int)
    assert len(row) == 40 and np.flatnonzero(np.diff(row) > 30).tolist() == [0, 16, 32]


def test_the_sheet_is_written(tmp_path: Path) -> None:
    write_bank(tmp_path / "bank", 16, [RECIPES["lawn"], RECIPES["oak_floor"]])
    out = tmp_path / "sheet.png"
    main([f"bank={tmp_path / 'bank'}", f"out={out}", "columns=2", "width_px=160", "size_px=16"])
    sheet = np.asarray(Image.open(out).convert("RGB"))
    assert sheet.shape[1] == 160 and sheet.std() > 10
