"""``analysis.json``: everything mining found, written and read."""

from __future__ import annotations

from pathlib import Path

from megasynth_attr.core.codec import canonical_json, from_plain
from megasynth_attr.core.files import read_json, storage_errors
from megasynth_attr.core.temporary import replace_atomically
from megasynth_train.subspace.analysis import FILE, FORMAT, Analysis


def write_analysis(folder: Path, analysis: Analysis) -> Path:
    """Write ``analysis.json`` into ``folder``, whole or not at all, and return its path.

    On one line: with one value per line, a million numbers take an encoder ten times as long.
    """
    path = folder / FILE
    with storage_errors("the analysis", path):
        replace_atomically(path, canonical_json(analysis).encode())
    return path


def read_analysis(folder: Path) -> Analysis:
    """Return the analysis in a folder of subspaces; DatasetError if it is missing or damaged."""
    path = folder / FILE
    return from_plain(Analysis, read_json(path, FORMAT), str(path))
