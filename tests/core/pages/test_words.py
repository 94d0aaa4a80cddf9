"""Durations and sizes in words."""

from __future__ import annotations

import pytest

from megasynth_attr.core.pages.words import duration_text, size_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (45, "45 s"), (200, "3 min 20 s"), (18600, "5 h 10 min"), (187200, "2 d 4 h")],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_sizes_in_words() -> None:
    assert [size_text(n) for n in (999, 1000, 1.5e6, 2.34e9, 5e12)] == ["999 B", "1 kB", "1.5 MB", "2.34 GB", "5 TB"]
