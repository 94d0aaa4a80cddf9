"""The camera's settings: field of view, and the keys of all families of trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import scope, setting, span, variants
from megasynth_attr.core.ranges import Range, Uniform
from megasynth_attr.core.streams import Scope


@dataclass(frozen=True)
class CameraSettings:
    """Field of view and trajectory."""

    scope: str = scope()
    variants: int = variants()
    family: str = setting("orbit", "kind of trajectory", options=["orbit", "ring", "micro", "room", "plane"])
    fov_x_deg: Range[float] = span(45.0, 70.0, "horizontal field of view, once per draw", minimum=5, maximum=150)
    clearance: float = setting(0.1, "no camera comes closer to any surface (scene units)", minimum=0, maximum=0.5)
    distance: Range[float] = span(
        0.85, 1.5, "orbit, ring: distance from the origin in units of D = 1.5·√3", minimum=0.6
    )
    elevation_sin: Range[float] = span(-0.3, 0.8, "orbit, ring: sine of the elevation", minimum=-1, maximum=1)
    max_elevation_deg: float = setting(
        70.0, "orbit: largest elevation, up or down; a level camera spins at the pole", minimum=5, maximum=85
    )
    target_sigma: float = setting(0.0, "orbit: spread of the look-at target (scene units)", minimum=0, maximum=1)
    control_points: int = setting(6, "orbit, micro: control points of the path", minimum=3, maximum=64)
    max_knot_angle_deg: float = setting(
        135.0, "orbit: largest angle between consecutive control points", minimum=10, maximum=179
    )
    ranges_per_dataset: bool = setting(False, "orbit: every dataset uses its own part of distance, elevation and sigma")
    zone: tuple[float, float, float] = setting(
        (0.2, 0.2, 0.08), "micro: half size of the free centre where paths start (scene units)", minimum=0, maximum=0.6
    )
    max_translation: float = setting(
        0.03, "micro: largest distance between any two control poses (scene units)", minimum=0, maximum=0.5
    )
    max_rotation_deg: float = setting(1.0, "micro: largest angle between any two control poses", minimum=0, maximum=30)
    min_free_view: float = setting(0.25, "room: free distance ahead of each camera (scene units)", minimum=0, maximum=2)
    max_step: float = setting(
        0.01,
        "plane: longest step of the walk (scene units; of a scanned head, in 1/0.4 of its height)",
        minimum=0,
        maximum=0.05,
    )
    trials: int = setting(2000, "orbit, room: paths or places tried before the scene is rejected", minimum=1)

    def validate(self, name: str, factors: Mapping[str, Any]) -> None:
        """Raise ConfigError where the family needs a geometry that this factor may not see."""
        geometry = factors["geometry"]
        if self.family in ("room", "plane") and not Scope(self.scope).sees(Scope(geometry.scope)):
            raise ConfigError(
                f"{name}.family={self.family} places cameras by the geometry, so geometry.scope={geometry.scope} must "
                f"not vary more often than {name}.scope={self.scope}; widen {name}.scope or narrow geometry.scope"
            )
        around = ("objects", "scan")
        layouts = {"orbit": around, "ring": around, "plane": ("plane", "scan")}.get(self.family, ("room", "plane"))
        if geometry.layout not in layouts:
            raise ConfigError(
                f"{name}.family={self.family} does not fit geometry.layout={geometry.layout}: "
                f"it needs {' or '.join(layouts)}"
            )
        for key in ("distance", "elevation_sin") if self.ranges_per_dataset else ():
            if not isinstance(getattr(self, key), Uniform):
                raise ConfigError(
                    f"{name}.{key}: {getattr(self, key)} has no parts for {name}.ranges_per_dataset=true; "
                    "write it as [low, high] or set that to false"
                )
