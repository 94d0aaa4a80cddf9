"""Which scenes are compared for equal depth, against a plain oracle."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from megasynth_attr.dataset.dataset_checks import EqualDepth
from megasynth_attr.dataset.findings import SceneFacts
from megasynth_attr.dataset.paths import scene_name

NAMES = ("camera", "haze", "lighting", "texture")
STILL = frozenset({"lighting", "texture"})
hashes = st.dictionaries(st.sampled_from(NAMES), st.sampled_from("abc"), min_size=1)
scenes = st.lists(st.tuples(hashes, st.sampled_from("xy")), max_size=12)


@given(scenes)
def test_groups_are_those_of_a_plain_comparison(drawn: list[tuple[dict[str, str], str]]) -> None:
    groups = defaultdict(list)
    for index, (of_scene, depth) in enumerate(drawn):
        others = tuple(sorted((name, value) for name, value in of_scene.items() if name not in STILL))
        groups[others].append((index, of_scene, depth))
    several = [group for group in groups.values() if len(group) > 1]
    differing = {
        name: count
        for name in NAMES
        if (count := sum(len({of_scene.get(name) for _, of_scene, _ in group}) > 1 for group in several))
    }
    unequal = [(group[0][0], index) for group in several for index, _, depth in group if depth != group[0][2]]
    with EqualDepth(STILL) as check:
        for index, (of_scene, depth) in enumerate(drawn):
            check.add(replace(SceneFacts(scene_name(index)), hashes=of_scene, depth_digests=[depth]))
        distinct, repeated = check.distinct_hashes, check.repeated()
        count, factors, findings = check.compare(lambda index: [drawn[index][1]])
    assert count == len(several)
    assert factors == differing
    assert [(finding.where, finding.message) for finding in findings] == [
        (
            scene_name(second),
            f"no factor that changes depth differs from scene {scene_name(first)}, but depth differs in 1 frames, "
            "first in frame 0",
        )
        for first, second in sorted(unequal)
    ]
    used = {name for of_scene, _ in drawn for name in of_scene}
    assert distinct == {name: len({of_scene.get(name) for of_scene, _ in drawn}) for name in sorted(used)}
    seen = [of_scene for of_scene, _ in drawn]
    again = sum(of_scene in seen[:index] for index, of_scene in enumerate(seen))
    said = [finding.message.split(", e.g.")[0] for finding in repeated]
    assert said == [f"scenes that repeat another one in every factor: {again}"] * bool(again)
