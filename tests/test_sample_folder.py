"""tools/sample.py: what is published names no folder of the machine that made it, and is still read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sample

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.files import read_json, sha256_of

STORED = Path(__file__).parent / "fixtures" / "v0_1"
MADE_IN = Path("/megasynth_v0_1")  # the folder that is in these files


def test_a_published_sample_names_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    updates = pytest.importorskip("megasynth_train.subspace.updates")
    run, out = tmp_path / "a run", tmp_path / "published"
    shutil.copytree(STORED / "data", run)
    for name in ("cluster", "subspaces", "runs"):
        shutil.copytree(STORED / name, run / "training" / name)
    sample.remove_places(run, {MADE_IN / "data": str(run), MADE_IN: str(run / "training")})
    assert str(run) in (run / "training/subspaces/analysis.json").read_text()
    (run / "training" / "odd.md").write_text(f"beside it: {tmp_path}/x, at home: {Path.home()}/y")
    monkeypatch.chdir(tmp_path)
    sample.main([str(run), str(out)])
    texts = [path for path in out.rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()]
    assert not texts
    training = out / sample.EXPERIMENT / "training"
    assert (training / "odd.md").read_text() == "beside it: ./x, at home: ~/y"
    monkeypatch.chdir(out)
    cluster = updates.open_cluster(training / "cluster")  # checks the checksums of all files
    assert [adapter.name for adapter in cluster.stored] == ["texture_00", "texture_01"]
    done = read_json(training / "subspaces" / "done.json")["files"]
    assert done == {name: sha256_of(training / "subspaces" / name) for name in done}
    assert Path(read_json(training / "subspaces" / "analysis.json")["adapters"][0]["folder"]).is_dir()
    in_basis = updates.open_adapter(training / "runs/subspace/adapter", "a", "a", lambda name: True)
    assert in_basis.update(next(iter(in_basis.keys))).left.any()


def test_it_says_what_to_name() -> None:
    with pytest.raises(ConfigError, match="name the experiment and the folder to write"):
        sample.main(["only one"])
