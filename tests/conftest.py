"""For all tests: hypothesis sets no time limit, because a busy machine is no failure; signals are left as found."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from megasynth_attr.core import early

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def signals_are_left_as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that runs a whole program inside this process would leave signals ignored, for it and what it starts."""
    monkeypatch.setattr(early, "_owner", early._owner)
    before = {number: signal.getsignal(number) for number in early.SIGNALS}
    yield
    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, handler)
