"""Named streams: stable for ever, independent of each other and of how work is split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megasynth_attr.core.streams import Scope, stream, stream_key


def key(factor="geometry", scope=Scope.SCENE, seed=0, attribute="texture", dataset=1, scene=2, variants=1):
    return stream_key(
        seed, factor, scope, attribute=attribute, dataset_index=dataset, scene_index=scene, variants=variants
    )


def test_a_stream_gives_the_same_numbers_for_ever():
    # recorded once: SHA-256 → SeedSequence → PCG64 are specified algorithms, so these hold on every platform
    assert stream("megasynth-attr").integers(2**32, size=3).tolist() == [1527218750, 2213270572, 382666631]


@pytest.mark.parametrize(
    ("scope", "depends_on"),
    [
        (Scope.EXPERIMENT, set()),
        (Scope.DATASET, {"attribute", "dataset"}),
        (Scope.SCENE, {"attribute", "dataset", "scene"}),
    ],
)
def test_scope_decides_which_indices_enter_the_key(scope, depends_on):
    base = key(scope=scope)
    changed = {"attribute": "camera", "dataset": 7, "scene": 9}
    assert {name for name, value in changed.items() if key(scope=scope, **{name: value}) != base} == depends_on
    assert key(scope=scope, seed=1) != base
    assert key(scope=scope, factor="texture") != base


def test_variants_are_taken_in_turn():
    keys = [key(scope=Scope.DATASET, scene=i, variants=3) for i in range(6)]
    assert keys[:3] == keys[3:]
    assert len(set(keys)) == 3


@given(st.text(max_size=40), st.text(max_size=40))
def test_different_keys_give_different_streams(a, b):
    same = np.array_equal(stream(a).integers(2**63, size=4), stream(b).integers(2**63, size=4))
    assert same == (a == b)


def test_a_factor_sees_only_what_is_drawn_as_rarely():
    assert Scope.SCENE.sees(Scope.EXPERIMENT) and Scope.DATASET.sees(Scope.DATASET)
    assert not Scope.DATASET.sees(Scope.SCENE)
    assert not Scope.EXPERIMENT.sees(Scope.DATASET)
