"""From boxes to primitives: how many each box holds, their shapes, poses and height fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from megasynth_attr.core.codec import rounded
from megasynth_attr.scene.heightfield import sample_heights
from megasynth_attr.scene.layout import Item, Layout, between
from megasynth_attr.scene.layouts.counts import Counts, IntRange
from megasynth_attr.scene.primitives import KINDS
from megasynth_attr.scene.spec import Geometry, Primitive

if TYPE_CHECKING:
    from megasynth_attr.scene.factors.geometry import GeometrySettings


def fill(
    rng: np.random.Generator, settings: GeometrySettings, layout: Layout, counts: Counts, attempts: int
) -> Geometry:
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


def number_weights(limits: IntRange, weights: tuple[float, ...]) -> np.ndarray:
    """Return the probabilities of low, ..., high. ``weights`` are a profile over the range: where their number is not
    that of the range (overridden), they are interpolated linearly; if that leaves nothing, all are equal."""
    count = limits[1] - limits[0] + 1
    profile = np.array(weights or (1.0,))
    spread = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(profile)), profile)
    return spread / spread.sum() if spread.sum() > 0 else np.full(count, 1 / count)


def _draw_number(rng: np.random.Generator, settings: GeometrySettings, counts: Counts, kind: str) -> int:
    limits = counts.large_primitives if kind == "large" else getattr(settings, f"{kind}_primitives")
    weights = number_weights(limits, getattr(settings, f"{kind}_primitive_weights"))
    return int(limits[0] + _pick(weights, rng.random(1))[0])


def _pick(weights: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return indices drawn with ``weights`` from uniform draws in [0, 1); never one of weight 0."""
    possible = np.flatnonzero(weights > 0)
    steps = np.cumsum(weights[possible] / weights.sum())
    return possible[np.searchsorted(steps[:-1], draws, side="right")]


def _shapes(
    rng: np.random.Generator, settings: GeometrySettings, layout: Layout, places: list[tuple[int, int]]
) -> list[Primitive]:
    """Return one random primitive for each (box, slot): kind, half-axes, pose and height fields."""
    count, names = len(places), list(settings.kind_weights)
    kinds = _pick(np.array([settings.kind_weights[name] for name in names]), rng.random(count))
    half_axes = np.array(rounded(between(rng, settings.half_axis, (count, 3)))).reshape(count, 3)
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
