"""Plans: pure, fair, equal over the ranks where they must be, and different where they should be."""

from __future__ import annotations

import dataclasses
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.ranges import Uniform
from megasynth_train.data.layouts.names import OURS
from megasynth_train.data.plan import Sampling, usable_views
from megasynth_train.data.scene import TrainingScene
from megasynth_train.data.sizes import check_settings
from megasynth_train.training import settings as keys

DataSettings = partial(keys.DataSettings, width_px=518)


def scenes(count, views=100, size=(518, 518)):
    return [TrainingScene(f"a/{i}", Path(f"a/{i}"), OURS, str(i), str(i), views, size) for i in range(count)]


def plan_step(seed, step, rank, world, scenes, settings, training=True):
    return Sampling(tuple(scenes), settings, seed, rank, world, training).plan(step)


def flat(value):
    """Return a plan as plain numbers that compare."""
    if dataclasses.is_dataclass(value):
        return {f.name: flat(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_it_is_a_pure_function_of_its_arguments():
    first = flat(plan_step(3, 7, 1, 4, scenes(50), DataSettings()))
    plan_step(3, 8, 1, 4, scenes(50), DataSettings())
    assert flat(plan_step(3, 7, 1, 4, scenes(50), DataSettings())) == first
    for seed, step, rank, training in ((4, 7, 1, True), (3, 8, 1, True), (3, 7, 0, True), (3, 7, 1, False)):
        assert flat(plan_step(seed, step, rank, 4, scenes(50), DataSettings(), training)) != first


@pytest.mark.parametrize("world", [1, 2, 5])
def test_ranks_share_the_shape_of_a_step_and_no_scene(world):
    options = DataSettings(aspect=Uniform(0.33, 1.0))
    for step in range(30):
        plans = [plan_step(0, step, rank, world, scenes(60), options) for rank in range(world)]
        assert len({(p.image_size_hw, len(p.scenes), len(p.views[0])) for p in plans}) == 1
        drawn = [s for p in plans for s in p.scenes]
        assert len(set(drawn)) == len(drawn)


def test_with_too_few_scenes_each_rank_still_has_distinct_ones_and_all_come_equally_often():
    options = DataSettings(views=Uniform(4, 4))  # 8 scenes a step
    for step in range(10):
        plans = [plan_step(0, step, rank, 3, scenes(9), options) for rank in range(3)]
        assert all(len(set(p.scenes)) == 8 for p in plans)
        counts = Counter(s for p in plans for s in p.scenes)
        assert set(counts.values()) <= {2, 3}
    plan = plan_step(0, 0, 0, 1, scenes(3), options)
    assert len(plan.scenes) == 8 and set(Counter(plan.scenes).values()) == {2, 3}


def test_views_and_scenes_per_step():
    seen = Counter()
    for step in range(1300):
        plan = plan_step(1, step, 0, 1, scenes(20), DataSettings())
        n = len(plan.views[0])
        seen[n] += 1
        assert len(plan.scenes) == 32 // n == len(plan.views)
        assert all(len(set(v)) == n and min(v) >= 0 and max(v) < 100 for v in plan.views)
        assert plan.crops.shape == (32 // n, n, 2) and plan.zooms.shape == (32 // n, n)
        assert plan.jitter.factors.shape == (32 // n, n, 4)
    assert sorted(seen) == list(range(4, 17))
    chi_square = sum((count - 100) ** 2 / 100 for count in seen.values())
    assert chi_square < 32.9  # 12 degrees of freedom, 0.1 %


def test_the_reference_frame_is_drawn_like_the_others():
    first = Counter()
    options = DataSettings(views=Uniform(4, 5))
    for step in range(400):
        first.update(v[0] for v in plan_step(1, step, 0, 1, scenes(20, views=5), options).views)
    total = sum(first.values())
    assert sorted(first) == list(range(5)) and all(abs(c / total - 0.2) < 0.03 for c in first.values())


def test_limits_of_the_number_of_views():
    few = [*scenes(3), *scenes(1, views=6)]
    assert usable_views(few, DataSettings()) == Uniform(4, 6)
    assert usable_views(few, DataSettings(duplicate_views=True)) == Uniform(4, 16)
    assert usable_views(scenes(2), DataSettings(images_per_step=8)) == Uniform(4, 8)
    plans = [plan_step(0, s, 0, 1, scenes(2, views=3), DataSettings(duplicate_views=True)) for s in range(20)]
    assert any(len(set(v)) < len(v) for p in plans for v in p.views)


def test_augmentation_is_drawn_within_its_limits():
    plans = [plan_step(0, step, 0, 1, scenes(20), DataSettings()) for step in range(200)]
    crops = np.concatenate([p.crops.reshape(-1) for p in plans])
    zooms = np.concatenate([p.zooms.reshape(-1) for p in plans]) / 518
    assert 0.8 <= crops.min() < 0.81 and 1.19 < crops.max() <= 1.2 and abs(crops.mean() - 1) < 0.01
    assert zooms.min() >= 0 and zooms.max() < 0.3 and abs(zooms.mean() - 0.1) < 0.005  # triangular, mode 0: a third
    factors = np.concatenate([p.jitter.factors.reshape(-1, 4) for p in plans])
    neutral = (factors == (1, 1, 1, 0)).all(axis=1)
    assert abs(neutral.mean() - 0.1) < 0.02
    assert np.abs(factors - (1, 1, 1, 0)).max(axis=0) == pytest.approx([0.5, 0.5, 0.5, 0.1], rel=0.01)
    assert abs(np.concatenate([p.jitter.grey.reshape(-1) for p in plans]).mean() - 0.05) < 0.015
    shared = [(f == f[:1]).all() for p in plans for f in p.jitter.factors]
    assert abs(np.mean(shared) - 0.3) < 0.05
    orders = Counter(tuple(o) for p in plans for o in p.jitter.order.reshape(-1, 4).tolist())
    assert len(orders) == 24


def test_switches():
    options = DataSettings(augment=False)
    for plan in (plan_step(0, 0, 0, 1, scenes(9), options), plan_step(0, 0, 0, 1, scenes(9), DataSettings(), False)):
        assert (plan.crops == 1).all() and (plan.zooms == 0).all() and not plan.jitter.grey.any()
        assert (plan.jitter.factors == (1, 1, 1, 0)).all()
    assert (plan_step(0, 0, 0, 1, scenes(9), DataSettings(zoom=0)).zooms == 0).all()


def test_aspects():
    heights = Counter()
    for step in range(300):
        plan = plan_step(0, step, 0, 1, scenes(9), DataSettings(aspect=Uniform(0.33, 1.0)))
        heights[plan.image_size_hw[0]] += 1
        assert plan.image_size_hw[1] == 518 and plan.image_size_hw[0] % 14 == 0
    assert min(heights) == 168 and max(heights) >= 504 and len(heights) > 20

    def validation(size, aspect):
        return plan_step(0, 0, 0, 1, scenes(9, size=size), DataSettings(aspect=aspect), False).image_size_hw

    assert validation((518, 518), Uniform(0.33, 1.0)) == (518, 518)
    assert validation((480, 640), Uniform(0.33, 1.0)) == (378, 518)  # 0.75, whole patches
    assert validation((480, 640), Uniform(1.0, 1.0)) == (518, 518)
    assert validation((300, 600), Uniform(0.6, 1.0)) == (308, 518)


def test_replacements_are_drawn_anew_and_only_from_what_is_left():
    few, options = scenes(10), DataSettings(views=Uniform(8, 8))
    sampling = Sampling(tuple(few), options, 0)
    plan = sampling.plan(0)
    bad = {plan.scenes[0]}
    drawn = sampling.replacement(plan, 0, bad)
    assert drawn == sampling.replacement(plan, 0, bad)
    assert drawn[0] not in plan.scenes and len(set(drawn[1])) == 8
    rest = set(range(10)) - {plan.scenes[1]}
    assert sampling.replacement(plan, 0, rest)[0] == plan.scenes[1]  # nothing fresh: one the step has
    assert sampling.replacement(plan, 0, set(range(10))) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [(DataSettings(width_px=500), "use 490 or 504"), (DataSettings(images_per_step=3), "images_per_step=3 is less")],
)
def test_settings_that_contradict_each_other(options, words):
    with pytest.raises(ConfigError, match=words):
        check_settings(options)


def test_views_in_the_order_of_the_path():
    some = scenes(5, views=12)
    for step in range(10):
        drawn = plan_step(0, step, 0, 1, some, DataSettings(view_order="random"))
        ordered = plan_step(0, step, 0, 1, some, DataSettings(view_order="path"))
        assert ordered.scenes == drawn.scenes
        assert ordered.views == tuple(tuple(sorted(views)) for views in drawn.views)
    assert any(views != tuple(sorted(views)) for views in drawn.views)


def test_every_nth_view():
    some = scenes(5, views=12)
    options = DataSettings(view_stride=5, views=Uniform(2, 12), images_per_step=6)
    assert usable_views(some, options) == Uniform(2, 3)
    drawn = {v for step in range(20) for views in plan_step(0, step, 0, 1, some, options).views for v in views}
    assert drawn == {0, 5, 10}
