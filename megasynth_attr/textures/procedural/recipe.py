"""A material as data: its name, its class, the function that paints it and the parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from megasynth_attr.textures.procedural.noise import Tile
from megasynth_attr.textures.surface import Bytes, Surface, maps_of

CATEGORIES = (
    "ceramic", "concrete", "fabric", "ground", "leather", "marble", "metal", "misc", "plaster", "plastic", "stone",
    "terracotta", "wood",
)  # fmt: skip
BANK_VERSION = 1  # raise it whenever any pixel changes: it is part of every identity and of the cache folder's name
BANK_SEED = 20260


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
