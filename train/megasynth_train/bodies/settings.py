"""All keys of ``python -m megasynth_train.bodies``."""

from __future__ import annotations

from dataclasses import dataclass

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import setting

THUMAN, TWOK2K, HEADS = "thuman", "twok2k", "heads"
LAYOUTS = (THUMAN, TWOK2K, HEADS)
MOST = 10_000  # four digits name a body


@dataclass(frozen=True)
class BodySettings:
    """Which bodies are made and in which layout they are written."""

    out: str = setting("", "output folder; older bodies in it are replaced when the new ones are complete")
    layout: str = setting(
        THUMAN,
        "thuman: NNNN/NNNN.obj, its MTL and material0.jpeg; twok2k: NNNNN/NNNNN.ply with colours of vertices; heads: "
        "as thuman, but the head and neck alone",
        options=LAYOUTS,
    )
    count: int = setting(8, "how many bodies", minimum=1, maximum=MOST)
    first: int = setting(0, "number of the first; body n is the same in every run with this seed", minimum=0)
    seed: int = setting(0, "changes every body", minimum=0)
    texture_px: int = setting(1024, "width and height of the painted texture", minimum=64, maximum=4096)
    bank: str = setting("procedural", "materials of the clothes: procedural, or a bank's folder", path="folder")

    def check(self) -> None:
        """Raise ConfigError for keys that are missing or cannot be met."""
        if not self.out:
            raise ConfigError("out= is missing: name the output folder, e.g. out=runs/bodies")
        if self.first + self.count > MOST:
            raise ConfigError(f"first={self.first} and count={self.count} reach beyond the last body, {MOST - 1}")
