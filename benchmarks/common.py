"""Shared by the benchmarks: a checkout that runs without installation, a clock, and Markdown tables.

Import this first: it puts the checkout and the ray-cast test data (``import synthetic``) on the path.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "train"), str(ROOT), str(ROOT / "tests" / "dataset")]

from megasynth_attr.core.pages.words import markdown_table  # noqa: E402


def print_table(title: str, head: str, rows: Iterable[Sequence[Any]]) -> None:
    """Print a Markdown table and an empty line; ``head`` holds the columns after ``title``, separated by " | "."""
    cells = [[title, *head.split(" | ")], *([str(cell) for cell in row] for row in rows)]
    print(markdown_table(cells, aligned=False) + "\n", flush=True)


def median_ms(
    function: Callable[..., object], items: Sequence[object], clock: Callable[[], float] = time.process_time
) -> float:
    """Return the median time of ``function(item)`` in milliseconds by ``clock``, by default CPU time of the process."""
    times = []
    for item in items:
        start = clock()
        function(item)
        times.append(clock() - start)
    return 1e3 * statistics.median(times)
