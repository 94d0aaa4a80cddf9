"""A run that writes archives: the bytes of one that writes folders, in shards, after damage, and after kill -9."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import runs
from runs import Reference

from megasynth_attr.dataset import pack

TAR = (*runs.TINY, "write.pack=tar")


def archives(out: Path) -> list[Path]:
    return sorted(out.glob("*/scenes/???/??????.tar"))


@pytest.fixture(scope="module")
def packed(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference, packed: what runs with write.pack=tar must make of it; not to be changed."""
    out = tmp_path_factory.mktemp("packed") / "out"
    shutil.copytree(reference.out, out)
    pack.main([f"dataset={out}"])
    return out


def test_a_killed_run_is_resumed_to_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with runs.started(*TAR, f"out={out}", "workers=1") as run:
        runs.wait_until(lambda: bool(archives(out)))
        os.killpg(run.pid, signal.SIGKILL)
    for file in archives(out):  # one that is there is whole
        assert file.read_bytes() == (packed / file.relative_to(out)).read_bytes()
    with (
        runs.started(*TAR, f"out={out}", "workers=1", "shard=1/2") as first,
        runs.started(*TAR, f"out={out}", "workers=1", "shard=2/2") as second,
    ):
        for shard in (first, second):
            text, _ = shard.communicate(timeout=runs.LIMIT_S)
            assert shard.returncode == 0, text
    assert runs.tree_hash(out) == runs.tree_hash(packed)
    assert not list(out.glob("*/tmp/*"))


def test_damaged_archives_are_set_aside_and_rendered_anew(packed: Path, reference: Reference, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(packed, out)
    torn, other = archives(out)[1:3]
    torn.write_bytes(torn.read_bytes()[:-700])
    content = other.read_bytes()
    other.write_bytes(content.replace(b'"attribute"', b'"Attribute"', 1))  # in scene.json
    done = runs.pipeline(*TAR, f"out={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    damaged = out / "geometry_00" / "damaged"
    assert sorted(path.name for path in damaged.iterdir()) == ["000001.tar", "000002.tar"]
    assert "geometry_00/000001.tar: " in done.stdout and "is no packed scene or not a whole one" in done.stdout
    assert "geometry_00/000002.tar: scene.json is not the file that checksums.json describes" in done.stdout
    shutil.rmtree(damaged)
    assert runs.tree_hash(out) == runs.tree_hash(packed)
    unpacked = runs.pipeline(*runs.TINY, f"out={out}")  # the form is no part of what a dataset is
    assert unpacked.returncode == 0 and "nothing to render" in unpacked.stdout
    pack.main([f"dataset={out}", "to=folder"])
    assert runs.tree_hash(out) == reference.hash
