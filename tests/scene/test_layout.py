"""Layouts: counts, sizes, places, overlaps and the shell, checked box by box with code of their own."""

from collections import Counter
from dataclasses import replace
from itertools import combinations, islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megasynth_attr.core.ranges import LogUniform, OneOf, Uniform
from megasynth_attr.scene.factors.geometry import LAYOUTS, GeometrySettings, draw_layout
from megasynth_attr.scene.keepout import InsideBox
from megasynth_attr.scene.layouts.counts import Counts, counts_of, grid_cell, number_weights

NEAR = 1e-6
ROOM = GeometrySettings(layout="room")
OBJECTS = GeometrySettings(layout="objects")
OPEN, SHELL = {"frame"}, {"floor", "ceiling", "side", "pane", "bar"}


def layout_of(settings_, seed, region=None, clearance=0.1, counts=None):
    counts = counts or of_dataset(settings_, 0)
    return draw_layout(np.random.default_rng(seed), settings_, counts, region, clearance)


def of_dataset(settings_, index):
    kind = LAYOUTS[settings_.layout]
    return counts_of(settings_, kind.LARGE, kind.SMALL, index)


@pytest.fixture(scope="module")
def rooms():
    return [layout_of(ROOM, seed) for seed in range(30)]


def bounds(box):
    return np.array(box.centre) - np.array(box.size) / 2, np.array(box.centre) + np.array(box.size) / 2


def of_kind(layout, kind):
    return [item.box for item in layout.items if item.box.kind == kind]


def shared_volume(a, b):
    sides = [min(h, k) - max(g, j) for g, h, j, k in zip(*bounds(a), *bounds(b), strict=True)]
    return float(np.prod(sides)) if min(sides) > NEAR else 0.0


def test_room_counts_are_in_range_or_dropped(rooms):
    limits = {"large": (2, 5), "small": (4, 8), "roof": (2, 4), "wall": (3, 6)}
    kept = Counter()
    for layout in rooms:
        counts = Counter(item.box.kind for item in layout.items)
        kept.update(counts)
        for kind, (low, high) in limits.items():
            assert low - layout.dropped <= counts[kind] <= high
        assert counts["frame"] <= 3 and counts["slab"] <= 2 and counts["stick"] <= 16 + 6
        assert counts["floor"] == counts["ceiling"] == 1
        assert counts["side"] == (4 if layout.window is None else 7)
    assert sum(layout.dropped for layout in rooms) < 0.05 * sum(kept.values())
    assert set(kept) == {"large", "small", "roof", "wall", "frame", "slab", "stick"} | SHELL
    assert 0.5 < np.mean([layout.window is not None for layout in rooms]) < 1


def test_boxes_are_inside_the_room_and_of_their_class_size(rooms):
    for layout in rooms:
        extent = np.array(layout.extent)
        assert (extent[:2] >= 17).all() and (extent[:2] <= 30).all() and 10 <= extent[2] <= 15
        for box in (item.box for item in layout.items if item.box.kind not in SHELL):
            low, high = bounds(box)
            assert (low >= -NEAR).all() and (high <= extent + NEAR).all()
        sizes = {
            kind: np.array([b.size for b in of_kind(layout, kind)]).reshape(-1, 3)
            for kind in ("large", "small", "frame")
        }
        assert ((sizes["large"] >= 4) & (sizes["large"] <= 8)).all()
        assert ((sizes["small"] >= 2) & (sizes["small"] <= [4, 4, 6])).all()
        assert ((sizes["frame"] >= 3) & (sizes["frame"] <= 6)).all()
        for box in of_kind(layout, "slab"):
            thin, *others = sorted(box.size)
            assert 0.01 <= thin <= 1 and (thin <= 0.2 or thin >= 0.5)
            assert min(others) >= 2 and max(others) <= 5


def test_boxes_stand_hang_and_lean_where_their_class_says(rooms):
    on_base = 0
    for layout in rooms:
        extent = np.array(layout.extent)
        assert all(abs(bounds(b)[0][2]) < NEAR for b in of_kind(layout, "large"))
        assert all(abs(bounds(b)[1][2] - extent[2]) < NEAR for b in of_kind(layout, "roof"))
        for box in of_kind(layout, "wall"):
            low, high = bounds(box)
            assert min(*np.abs(low[:2]), *np.abs(high[:2] - extent[:2])) < NEAR
        for box in of_kind(layout, "small"):
            low, high = bounds(box)
            if low[2] > NEAR:
                bases = [b for b in of_kind(layout, "large") if abs(bounds(b)[1][2] - low[2]) < NEAR]
                assert any(
                    np.allclose(b.centre[:2], box.centre[:2]) and (low >= bounds(b)[0] - NEAR)[:2].all() for b in bases
                )
                on_base += 1
    assert on_base > 20


def test_solid_boxes_do_not_intersect(rooms):
    for layout in rooms:
        solid = [i.box for i in layout.items if i.box.kind not in SHELL | OPEN]
        assert all(shared_volume(a, b) == 0 for a, b in combinations(solid, 2))


def test_objects_overlap_at_most_by_the_tolerance_and_form_clusters():
    touching = 0
    for seed in range(30):
        layout = layout_of(OBJECTS, seed)
        boxes = [item.box for item in layout.items]
        assert {b.kind for b in boxes} <= {"large", "small"} and layout.window is None
        assert 6 <= len(boxes) + layout.dropped <= 12 and layout.dropped <= 2
        for a, b in combinations(boxes, 2):
            shared = shared_volume(a, b)
            assert shared <= 0.25 * min(np.prod(a.size), np.prod(b.size)) + NEAR
            touching += shared > 0
    assert touching > 60


def ray_hits(origin, directions, box):
    """Whether rays from ``origin`` meet a box (slab method)."""
    low, high = bounds(box)
    with np.errstate(divide="ignore"):
        near, far = (low - origin) / directions, (high - origin) / directions
    return (np.minimum(near, far).max(axis=1) <= np.maximum(near, far).min(axis=1)) & (
        np.maximum(near, far).min(axis=1) > 0
    )


def test_light_leaves_the_room_through_the_window_only(rooms):
    rng = np.random.default_rng(0)
    for layout in rooms:
        extent = np.array(layout.extent)
        middle = extent * rng.uniform(0.3, 0.7, 3)
        assert_closed_but_for_the_window(layout, middle, rng.normal(size=(3000, 3)))
        if layout.window is not None:  # the hole is open
            through = np.array(layout.window.centre) - middle
            assert not any(
                ray_hits(middle, through[None], item.box) for item in layout.items if item.box.kind == "side"
            )
        for axis, level in ((a, level) for a in range(3) for level in (0.002, extent[a] - 0.002)):
            origin, grazing = extent * rng.uniform(0.3, 0.7, 3), rng.normal(size=(300, 3))
            origin[axis], grazing[:, axis] = level, rng.choice([0, 1e-6, -1e-6], 300)  # along a wall, into its seams
            assert_closed_but_for_the_window(layout, origin, grazing)


def assert_closed_but_for_the_window(layout, origin, directions):
    shell = [item.box for item in layout.items if item.box.kind in ("floor", "ceiling", "side")]
    escaped = ~np.any([ray_hits(origin, directions, box) for box in shell], axis=0)
    if layout.window is None:
        assert not escaped.any()
        return
    axis, centre = int(np.abs(layout.window.outward).argmax()), np.array(layout.window.centre)
    half = np.array(layout.window.size) / 2
    inner = centre[axis] - layout.window.outward[axis] * half[axis]
    steps = (inner - origin[axis]) / directions[escaped, axis]
    off_centre = np.abs(origin + steps[:, None] * directions[escaped] - centre)
    half[axis] = np.inf
    assert (steps > 0).all() and (off_centre <= half + NEAR).all()


def test_pieces_of_a_wall_share_a_slot_and_nothing_stands_before_the_window(rooms):
    for layout in (r for r in rooms if r.window is not None):
        shares = [item.shares_slot_of for item in layout.items if item.box.kind == "side"]
        assert sum(s is not None for s in shares) == 3 and len({s for s in shares if s is not None}) == 1
        assert [item.box.kind for item in layout.items[:6]] == ["floor", "ceiling", *["side"] * 4]
        window = layout.window
        before = replace(layout.items[0].box, centre=window.centre, size=tuple(np.maximum(window.size, 0.5)))
        assert all(shared_volume(before, b) == 0 for b in of_kind(layout, "wall") + of_kind(layout, "stick"))


def test_plane_is_a_room_with_one_picture():
    layout = layout_of(GeometrySettings(layout="plane"), 0)
    assert layout.extent == (20, 20, 12) and len(layout.items) == 7
    (picture,) = of_kind(layout, "picture")
    assert picture.size == (0.3, 3, 4) and picture.centre == (0.15, 10, 6)
    assert layout == layout_of(GeometrySettings(layout="plane"), 1)  # nothing random in it


@pytest.mark.parametrize("clearance", [0.0, 0.1, 0.2])
def test_boxes_keep_away_from_where_cameras_may_be(clearance):
    region = InsideBox((0.25, 0.2, 0.1))
    for seed in range(15):
        layout = layout_of(ROOM, seed, region, clearance)
        scale, centre = layout.scale_and_centre()
        for box in (item.box for item in layout.items if item.box.kind not in SHELL):
            low, high = ((b - centre) * scale for b in bounds(box))
            gap = [max(a - h, -h - b, 0) for a, b, h in zip(low, high, region.half_size, strict=True)]
            assert np.hypot(np.hypot(gap[0], gap[1]), gap[2]) >= clearance
            assert max(gap) > 0


POSITIVE = st.floats(0.01, 200)


def spans(values):
    return st.tuples(values, values).map(lambda pair: Uniform(min(pair), max(pair)))


@settings(max_examples=20, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
@given(
    layout=st.sampled_from(["room", "objects"]),
    size=spans(POSITIVE),
    other=spans(POSITIVE),
    room=spans(st.floats(1, 100)),
    count=spans(st.integers(0, 30)),
    trials=st.integers(1, 100),
    overlap=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_hostile_settings_end_with_boxes_dropped_and_counted(layout, size, other, room, count, trials, overlap, seed):
    rooms_ = dict.fromkeys(("room_size_xy", "room_size_z", "objects_size_xy", "objects_size_z"), room)
    sizes = dict.fromkeys(
        ("large_size_xy", "small_size_z", "roof_size_xy", "wall_thick_depth", "slab_thick_size"), size
    )
    others = dict.fromkeys(("large_size_z", "small_size_xy", "small_top_size_z", "wall_stick_section"), other)
    counts = dict.fromkeys(("roof_count", "wall_count", "frame_count", "slab_count", "wall_stick_count"), count)
    always = dict.fromkeys(("frame_probability", "slab_probability", "stick_probability", "window_probability"), 1.0)
    overlaps = {
        "room_overlap": overlap,
        "objects_overlap": overlap,
        "window_width": Uniform(0.01, 0.9),
        "window_bar_width": size,
    }
    hostile = GeometrySettings(
        layout=layout, box_trials=trials, **rooms_, **sizes, **others, **counts, **always, **overlaps
    )
    fixed = Counts(Uniform(count.high, count.high), Uniform(count.low, count.low), Uniform(1, 3))
    result = layout_of(hostile, seed, InsideBox((0.3, 0.3, 0.3)), counts=fixed)
    kinds = Counter(item.box.kind for item in result.items)
    assert kinds["large"] <= count.high and kinds["small"] <= count.low
    if layout == "objects":
        assert kinds["large"] + kinds["small"] + result.dropped == count.low + count.high
    for box in (item.box for item in result.items):
        assert np.isfinite(box.centre).all() and min(box.size) > 0


def test_what_is_drawn_first_does_not_depend_on_what_follows():
    few = replace(ROOM, small_count=Uniform(0, 0), stick_probability=0.0)
    many = replace(ROOM, small_count=Uniform(9, 9))
    for seed in range(5):
        a, b = layout_of(few, seed), layout_of(many, seed)
        assert of_kind(a, "large") == of_kind(b, "large") and a.window == b.window
        assert a.extent == b.extent
    assert layout_of(ROOM, 3) == layout_of(ROOM, 3) != layout_of(ROOM, 4)


def test_the_grid_is_row_major_first_and_refined_after():
    box_max, ranges = (3, 5, 7), ((1, 3), (4, 6), (7, 9))
    cells = [grid_cell(box_max, ranges, k) for k in range(150)]
    assert cells[:9] == [(b, r) for b in box_max for r in ranges]
    assert len(set(cells)) == 150  # all datasets differ
    assert set(cells[:25]) == {(b, r) for b in (3, 4, 5, 6, 7) for r in ((1, 3), (2, 5), (4, 6), (5, 8), (7, 9))}
    assert all(b >= 3 and 1 <= low <= high <= 9 for b, (low, high) in cells)
    assert [grid_cell((4,), ((1, 2),), k) for k in range(3)] == [(4, (1, 2)), (5, (1, 2)), (6, (1, 2))]


def test_counts_come_from_the_preset_or_from_the_grid():
    assert of_dataset(ROOM, 4) == Counts(Uniform(2, 5), Uniform(4, 8), Uniform(4, 8))
    assert of_dataset(OBJECTS, 0).large == Uniform(3, 6)
    few = replace(OBJECTS, large_count=OneOf((1, 2)), small_count=Uniform(0, 0))
    assert of_dataset(few, 0) == Counts(OneOf((1, 2)), Uniform(0, 0), Uniform(4, 8))
    grid = replace(OBJECTS, grid_box_max=(2, 7), grid_primitives=(1, 3, 7, 9))
    assert of_dataset(grid, 1) == Counts(Uniform(2, 2), Uniform(2, 2), Uniform(7, 9))
    assert of_dataset(grid, 2) == Counts(Uniform(3, 7), Uniform(3, 7), Uniform(1, 3))


def test_weights_are_spread_over_an_overridden_range():
    weights = (5.0, 7.0, 10.0, 7.0, 5.0)
    assert np.allclose(number_weights(Uniform(4, 8), weights), np.array(weights) / 34)
    assert np.allclose(number_weights(Uniform(1, 3), weights), np.array([5, 10, 5]) / 20)
    assert np.allclose(number_weights(Uniform(2, 5), ()), 0.25)
    assert np.allclose(number_weights(Uniform(2, 3), (0.0, 1.0, 0.0)), 0.5)  # the profile's peak falls between the two
    assert list(islice(number_weights(Uniform(6, 6), weights), 2)) == [1.0]
    assert np.allclose(number_weights(OneOf((1, 9)), (1.0, 3.0)), [0.25, 0.75])  # over the numbers there are
    assert np.allclose(number_weights(LogUniform(1, 2), (1.0, 1.0)), np.log([3, 5 / 3]) / np.log(5))
