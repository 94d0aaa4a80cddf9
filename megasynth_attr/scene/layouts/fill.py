"""From boxes to primitives: how many each box holds, their shapes, poses and height fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import setting, span
from megasynth_attr.core.ranges import Range
from megasynth_attr.scene.heightfield import sample_heights
from megasynth_attr.scene.layout import Item, Layout, probability
from megasynth_attr.scene.layouts.counts import Counts, CountSettings, has_weight, number_weights, pick
from megasynth_attr.scene.primitives import KINDS
from megasynth_attr.scene.spec import Geometry, Primitive


@dataclass(frozen=True)
class FillSettings(CountSettings):
    """What the boxes hold."""

    tessellation: int = setting(
        36, "cells along a cuboid's side; a full turn has 4 times as many", minimum=1, maximum=256
    )
    frame_strut_width: float = setting(0.1, "frame: section of a strut (layout units)", minimum=0.001, maximum=2)
    kind_weights: dict[str, float] = setting(
        {"ellipsoid": 1.0, "cuboid": 1.0, "cylinder": 1.0, "cone": 0.0, "torus": 0.0, "capsule": 0.0},
        "weight of each kind of primitive, e.g. geometry.kind_weights.torus=1",
    )
    half_axis: Range[float] = span(
        0.25, 2.0, "each half-axis of a primitive before its box stretches it", minimum=0.01, maximum=100
    )
    flat_probability: float = probability(0.1, "height field: probability that a face stays flat")
    relief: float = setting(
        0.6, "height field: largest control height, share of the smallest axis", minimum=0, maximum=2
    )

    def check_kinds(self, name: str) -> None:
        """Raise ConfigError for kinds that do not exist, or weights with which none can be drawn."""
        if unknown := sorted(set(self.kind_weights) - set(KINDS)):
            raise ConfigError(f"{name}.kind_weights.{unknown[0]}: unknown kind; known: {', '.join(KINDS)}")
        if not has_weight(self.kind_weights.values()):
            raise ConfigError(f"{name}.kind_weights: weights must be finite and not negative, at least one positive")


def fill(rng: np.random.Generator, settings: FillSettings, layout: Layout, counts: Counts, attempts: int) -> Geometry:
    """Return the Geometry of ``layout``: every box filled, in order."""
    numbers = [_draw_number(rng, settings, counts, item.primitives) if item.primitives else 1 for item in layout.items]
    starts = np.cumsum([0, *numbers]).tolist()  # index of each item's first primitive; by default its slot
    composite = [
        (box, starts[box] + k) for box, item in enumerate(layout.items) if item.primitives for k in range(numbers[box])
    ]
    primitives = _shapes(rng, settings, layout, composite)
    for box, item in enumerate(layout.items):
        if not item.primitives:
            first = box if item.shares_slot_of is None else item.shares_slot_of
            primitives.insert(starts[box], _plain(box, item, slot=starts[first]))
    scale, centre = layout.scale_and_centre()
    return Geometry(
        layout=layout.name,
        extent=layout.extent,
        boxes=tuple(item.box for item in layout.items),
        primitives=tuple(primitives),
        window=layout.window,
        tessellation=settings.tessellation,
        scale=scale,
        centre=centre,
        dropped_boxes=layout.dropped,
        attempts=attempts,
        strut_width=rounded(settings.frame_strut_width),
    )


def _draw_number(rng: np.random.Generator, settings: FillSettings, counts: Counts, kind: str) -> int:
    limits = counts.large_primitives if kind == "large" else getattr(settings, f"{kind}_primitives")
    weights = number_weights(limits, getattr(settings, f"{kind}_primitive_weights"))
    return int(limits.whole_numbers()[0][pick(weights, rng.random(1))[0]])


def _shapes(
    rng: np.random.Generator, settings: FillSettings, layout: Layout, places: list[tuple[int, int]]
) -> list[Primitive]:
    """Return one random primitive for each (box, slot): kind, half-axes, pose and height fields."""
    count, names = len(places), list(settings.kind_weights)
    kinds = pick(np.array([settings.kind_weights[name] for name in names]), rng.random(count))
    half_axes = np.array(rounded(settings.half_axis.draw(rng, (count, 3)))).reshape(count, 3)
    quaternion = rng.normal(size=(count, 4))  # normalised: uniform on SO(3)
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    shift = rng.random((count, 3)) * half_axes.max(axis=1, initial=0)[:, None]
    shift *= np.where(rng.random((count, 3)) < 0.5, -1, 1)
    heights, is_flat = sample_heights(
        rng, half_axes, relief=settings.relief, flat_probability=settings.flat_probability
    )
    primitives = []
    for k, (box, slot) in enumerate(places):
        kind, item = names[kinds[k]], layout.items[box]
        fields = [() if is_flat[k, f] else rounded(heights[k, f]) for f in range(KINDS[kind].faces)]
        primitives.append(
            Primitive(
                kind=kind,
                box=box,
                half_axes=rounded(half_axes[k]),
                rotation_xyzw=rounded(quaternion[k]),
                translation=rounded(shift[k]),
                heights=tuple(fields),
                wireframe=item.primitives == "frame",
                surface=item.surface,
                slot=slot,
            )
        )
    return primitives


def _plain(box: int, item: Item, slot: int) -> Primitive:
    """Return the primitive that is its box: a flat, unrotated cuboid."""
    return Primitive(
        kind="cuboid",
        box=box,
        half_axes=rounded(np.array(item.box.size) / 2),
        rotation_xyzw=(0.0, 0.0, 0.0, 1.0),
        translation=(0.0, 0.0, 0.0),
        heights=((),) * KINDS["cuboid"].faces,
        wireframe=False,
        surface=item.surface,
        slot=slot,
    )
