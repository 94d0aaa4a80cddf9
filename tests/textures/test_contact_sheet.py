"""The contact sheet: it shows every material, and its light comes from where it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from megasynth_attr.textures.contact_sheet import main, render_sphere
from megasynth_attr.textures.procedural.bank import write_bank
from megasynth_attr.textures.procedural.recipes import read_recipes, recipes_path

RECIPES = read_recipes(recipes_path())


def test_a_plain_sphere_is_lit_from_the_upper_left() -> None:
    n = 16
    maps = {
        "basecolor": np.full((n, n, 3), 160, np.uint8),
        "normal": np.full((n, n, 3), (128, 128, 255), np.uint8),
        "roughness": np.full((n, n), 200, np.uint8),
        "metallic": np.zeros((n, n), np.uint8),
        "height": np.zeros((n, n), np.uint8),
    }
    image = render_sphere(maps, 64, 1.0, np.zeros(3)).astype(float).mean(axis=-1)
    assert image[16, 16] > image[48, 48] + 20 and image[0, 0] == 0
    tilted = {**maps, "normal": np.full((n, n, 3), (128, 230, 200), np.uint8)}  # towards +y: up
    assert render_sphere(tilted, 64, 1.0, np.zeros(3)).astype(float).mean(axis=-1)[45, 32] > image[45, 32] + 5


def test_the_sheet_is_written(tmp_path: Path) -> None:
    write_bank(tmp_path / "bank", 16, [RECIPES["lawn"], RECIPES["oak_floor"]])
    out = tmp_path / "sheet.png"
    main([f"bank={tmp_path / 'bank'}", f"out={out}", "columns=2", "width_px=160", "size_px=16"])
    sheet = np.asarray(Image.open(out).convert("RGB"))
    assert sheet.shape[1] == 160 and sheet.std() > 10
