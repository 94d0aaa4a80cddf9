"""Shared by the benchmarks: a checkout that runs without installation, a clock, and Markdown tables.

Imported first: it puts the checkout and the ray-cast test data (``import synthetic``) on the path.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "train"), str(ROOT), str(ROOT / "tests" / "dataset")]

from megasynth_attr.core.files import json_bytes, read_json, sha256_of  # noqa: E402
from megasynth_attr.core.pages.words import markdown_table  # noqa: E402
from megasynth_attr.dataset.paths import CHECKSUMS_FILE  # noqa: E402


def ray_cast_dataset(folder: Path, noise: int, *words: str) -> Path:
    """Return a dataset of ray-cast scenes; noise of so many levels makes its pictures as costly as real ones."""
    import synthetic

    dataset = synthetic.write_dataset(synthetic.config(*words), folder)
    generator = np.random.default_rng(0)
    for file in dataset.glob("scenes/*/*/rgb/*.png"):
        rgba = np.asarray(Image.open(file)).astype(np.int16)
        drawn = generator.integers(-noise, noise + 1, rgba[..., :3].shape, dtype=np.int16)
        rgba[..., :3] += drawn * (rgba[..., 3:] > 0)
        Image.fromarray(rgba.clip(0, 255).astype(np.uint8)).save(file, compress_level=4)
        checksums = file.parents[1] / CHECKSUMS_FILE
        record = read_json(checksums)
        record["files"][f"rgb/{file.name}"] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        checksums.write_bytes(json_bytes(record))
    return dataset


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
