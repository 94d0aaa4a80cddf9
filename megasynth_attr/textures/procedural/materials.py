"""The table of all procedural materials, by name."""

from __future__ import annotations

from megasynth_attr.textures.procedural.recipe import Recipe
from megasynth_attr.textures.procedural.table_crafted import CRAFTED
from megasynth_attr.textures.procedural.table_mineral import MINERAL

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in sorted(MINERAL + CRAFTED, key=lambda r: r.name)}
