"""Stored adapters of every method, and a cluster of two of them to be damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored_adapters import METHODS, cluster_of, store


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one stored adapter per method, named <method>_00; not to be changed."""
    folder = tmp_path_factory.mktemp("stored")
    for method in METHODS:
        store(folder / f"{method}_00", method)
    return folder


@pytest.fixture
def pair(adapters: Path, tmp_path: Path) -> Path:
    """A cluster of two LoRA adapters, to be damaged."""
    return cluster_of(tmp_path / "c", {name: adapters / "lora_00" for name in ("texture_00", "texture_01")})
