"""A small ray-cast dataset in our layout and in the paper's; copies of it for tests that damage it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2] / "dataset"))  # synthetic.py and raycast.py
sys.path.insert(0, str(Path(__file__).parent))  # plane_scenes.py

import layout_folders
import synthetic

from megasynth_attr.dataset.export.__main__ import Options, export_dataset
from megasynth_train.data.layouts.choose import choose


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 3 scenes × 6 views of 70×56 px; not to be changed."""
    return synthetic.write_dataset(synthetic.config(), tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with every scene as a tar file; not to be changed."""
    return synthetic.write_dataset(synthetic.config("write.pack=tar"), tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="session")
def paper(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in the paper's layout: the folder above ``texture_00``; not to be changed."""
    out = tmp_path_factory.mktemp("paper")
    export_dataset(Options("paper", str(ours), str(out)), progress=False)
    return out


@pytest.fixture
def ours_copy(ours: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(ours, tmp_path / "copy" / ours.name))


@pytest.fixture
def paper_copy(paper: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(paper, tmp_path / "paper"))


@pytest.fixture(scope="session")
def folders(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a writer's name, written once; not to be changed."""
    written: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in written:
            written[name] = layout_folders.WRITERS[name](tmp_path_factory.mktemp("layout") / name, ours)
        return written[name]

    return folder


@pytest.fixture
def copied(folders: Callable[[str], Path], tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """Return a copy of the folder of a writer's name, and its first scene, which may be damaged."""

    def copy(name: str) -> tuple[Path, Path]:
        root = Path(shutil.copytree(folders(name), tmp_path / name))
        return root, choose(root).folders[0]

    return copy
