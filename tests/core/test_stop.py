"""Signals and time limits: remembered until somebody asks, or raised at once."""

from __future__ import annotations

import os
import signal
import time

import pytest

from megasynth_attr.core.errors import Interrupted
from megasynth_attr.core.stop import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_are_remembered_until_somebody_asks(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=f"stopped by {number.name}; run the same command again"):
            stop.check()
    assert signal.getsignal(number) is before


def test_an_impatient_stop_raises_at_once_and_nests() -> None:
    with pytest.raises(Interrupted), StopRequest(patient=False):
        with StopRequest() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted):
                inner.check()
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the signal should have ended the block")


def test_the_time_limit() -> None:
    with StopRequest(600) as stop:
        stop.check()
    with StopRequest(0.01) as stop:
        time.sleep(0.02)
        with pytest.raises(Interrupted, match=r"max_runtime_s=0\.01 is over"):
            stop.check()
