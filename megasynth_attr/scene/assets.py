"""The files a scene refers to by name; plain paths, so that a scene file itself never contains one."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Assets:
    """Paths of image files: ``materials[name][map]``, ``pictures[name]``, ``hdris[name]``."""

    materials: dict[str, dict[str, str]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    hdris: dict[str, str] = field(default_factory=dict)
