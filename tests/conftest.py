"""For all tests: hypothesis sets no time limit, because a busy machine is no failure; nothing of this process stays
changed; what is rendered once is looked at by one worker, and the longest files are begun first.
"""

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from megasynth_attr.core import early
from megasynth_attr.scene import factor

LONGEST = ("tests/blender/", "tests/farm/", "tests/train/")  # they start Blenders, whole runs and trainings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def plugins_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The factors of a plugin that a test loads would be in the help and the scenes of the next."""
    monkeypatch.setattr(factor, "_plugin_factors", dict(factor._plugin_factors))
    monkeypatch.setattr(factor, "_plugin_sources", dict(factor._plugin_sources))


@pytest.fixture(autouse=True)
def signals_are_left_as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that runs a whole program inside this process would leave signals ignored, for it and what it starts."""
    monkeypatch.setattr(early, "_owner", early._owner)
    before = {number: signal.getsignal(number) for number in early.SIGNALS}
    yield
    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """PyTorch, other libraries and all tests are a million objects: no rubbish is looked for among them, ever."""
    gc.disable()
    yield
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With --dist loadfile, tests/blender goes to one worker as if it were a file: another would render all again."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = LONGEST[0]
            return folder if nodeid.startswith(folder) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # by the number of tests, which would leave the longest files for the end
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let several workers begin with the longest files: at the end one would work alone."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def place(item: pytest.Item) -> tuple[int, int]:
        folder = next((i for i, name in enumerate(LONGEST) if item.nodeid.startswith(name)), len(LONGEST))
        return folder, -slow[item.path]

    items.sort(key=place)
