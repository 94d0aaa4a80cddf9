"""How many Blender processes, and how many threads in each."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megasynth_attr.farm.workers import WorkerCount, choose_workers
from megasynth_attr.scene.settings import RunSettings

GIB = 2**30


@pytest.mark.parametrize(
    ("settings", "scenes", "cores", "memory", "expected"),
    [
        ({}, 200, 2, 16 * GIB, (1, 2)),
        ({}, 200, 1, 16 * GIB, (1, 1)),
        ({}, 200, 16, 64 * GIB, (8, 2)),
        ({}, 1, 2, 16 * GIB, (1, 2)),  # one scene gets all cores
        ({}, 3, 16, 64 * GIB, (3, 5)),
        ({}, 200, 16, 6 * GIB, (4, 4)),  # memory for four workers
        ({}, 200, 16, 0, (8, 2)),  # a system that does not tell its memory
        ({"workers": 2}, 200, 16, 64 * GIB, (2, 8)),
        ({"threads": 4}, 200, 16, 64 * GIB, (4, 4)),
        ({"workers": 3, "threads": 3}, 200, 2, GIB, (3, 3)),  # what is asked for is done
        ({"device": "cuda"}, 200, 16, 64 * GIB, (1, 16)),
    ],
)
def test_workers_and_threads(settings: dict, scenes: int, cores: int, memory: int, expected: tuple[int, int]) -> None:
    run = dataclasses.replace(RunSettings(), **settings)
    assert choose_workers(run, scenes, cores, memory) == WorkerCount(*expected)


@given(st.integers(1, 5000), st.integers(1, 256), st.integers(0, 2**40))
def test_it_never_asks_for_more_than_there_is(scenes: int, cores: int, memory: int) -> None:
    count = choose_workers(RunSettings(), scenes, cores, memory)
    assert count.workers >= 1 and count.threads >= 1
    assert count.workers * count.threads <= cores and count.workers <= scenes
