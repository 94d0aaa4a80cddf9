"""A complete tiny dataset, rendered once without any trouble, that all others are compared with."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator

import pytest
import runs
import slurm_cluster
from runs import Reference


def need(present: bool, what: str) -> None:
    """Skip a test that needs ``what`` where it is absent; in continuous integration that is a failure."""
    if not present:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, but there is no {what}")
        pytest.skip(f"no {what} on this machine")


@pytest.fixture(scope="session")
def bpy_module() -> None:
    need(importlib.util.find_spec("bpy") is not None, "module bpy (pip install bpy==5.0.1)")


@pytest.fixture(scope="session")
def blender_binary() -> str:
    need(shutil.which("blender") is not None, "Blender binary (apt-get install blender)")
    return str(shutil.which("blender"))


@pytest.fixture(scope="session")
def reference(bpy_module: None, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    out = tmp_path_factory.mktemp("reference") / "out"
    done = runs.pipeline(*runs.TINY, f"out={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    return Reference(out, runs.tree_hash(out), done.stdout + done.stderr)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_cluster.Cluster]:
    """Slurm is an optional part: also in continuous integration its tests are skipped where it is not installed."""
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    with slurm_cluster.slurm_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster
