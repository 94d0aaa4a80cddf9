"""A material as data (name, class, the function that paints it, its parameters), and all of them from their file."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.pictures import read_content
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.textures.procedural import coatings, earth, fabrics, masonry, metals, oddities, stones, woods
from megasynth_attr.textures.procedural.noise import Tile
from megasynth_attr.textures.records import CATEGORIES
from megasynth_attr.textures.surface import Bytes, Surface, maps_of

BANK_VERSION = 1  # raise it whenever any pixel changes: it is part of every identity and of the cache folder's name
BANK_SEED = 20260
_CRAFTS = (coatings, earth, fabrics, masonry, metals, oddities, stones, woods)


@dataclass(frozen=True)
class Recipe:
    """One procedural material."""

    name: str
    category: str
    paint: Callable[..., Surface]
    parameters: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """Return the SHA-256 (hex) over bank version, seed, name, class, function and parameters."""
        content = {
            "bank_version": BANK_VERSION,
            "seed": BANK_SEED,
            "name": self.name,
            "category": self.category,
            "paint": self.paint.__name__,
            "parameters": self.parameters,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def surface(self, size_px: int) -> Surface:
        """Return the painted tile, ``size_px`` square."""
        return self.paint(Tile(f"{BANK_SEED}/{self.name}", size_px), **self.parameters)

    def maps(self, size_px: int) -> dict[str, Bytes]:
        """Return the five 8-bit maps (see ``surface.maps_of``); a pure function of the recipe and the size."""
        return maps_of(self.surface(size_px))


def recipes_path() -> Path:
    """Return the shipped file of recipes: class → name → painting function → its parameters."""
    return resource_dir("assets") / "materials" / "recipes.yaml"


def read_recipes(path: Path) -> dict[str, Recipe]:
    """Return the recipes of a file by name, sorted; DatasetError naming the first one that cannot be painted."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # seven times as fast, where PyYAML was built with it
    try:
        table = yaml.load(read_content(path, "install the package again"), loader)
        entries = [(name, category, how) for category, named in table.items() for name, how in named.items()]
    except (yaml.YAMLError, AttributeError) as error:
        raise DatasetError(f"{path} is not class → name → painting function → parameters: {error}") from error
    painters = _painters()
    found = {name: _recipe(name, category, how, painters, f"{path}: {name}") for name, category, how in entries}
    if len(found) < len(entries):
        raise DatasetError(f"{path}: a name stands in two classes; every material needs its own")
    return dict(sorted(found.items()))


def _painters() -> dict[str, Callable[..., Surface]]:
    """Return the functions that paint materials by name: those of the crafts' modules that return a Surface."""
    functions = [function for craft in _CRAFTS for function in vars(craft).values() if inspect.isfunction(function)]
    return {f.__name__: f for f in functions if f.__annotations__.get("return") == Surface.__name__}


def _recipe(name: str, category: str, how: Any, painters: Mapping[str, Callable[..., Surface]], where: str) -> Recipe:
    """Return a recipe whose function takes its parameters; DatasetError, beginning with ``where``, if it is wrong."""
    if category not in CATEGORIES:
        raise DatasetError(f"{where} is in the unknown class {category!r}; known: {', '.join(CATEGORIES)}")
    if not isinstance(how, dict) or len(how) != 1:
        raise DatasetError(f"{where} must name one painting function, with its parameters below")
    ((function, parameters),) = how.items()
    if function not in painters:
        raise DatasetError(f"{where}: no function {function!r} paints a material")
    try:
        inspect.signature(painters[function]).bind(None, **parameters)
    except TypeError as error:
        raise DatasetError(f"{where}: {function} does not take these parameters: {error}") from error
    return Recipe(name, category, painters[function], parameters)
