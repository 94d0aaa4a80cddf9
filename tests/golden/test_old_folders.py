"""Folders of version 0.1.0 are read, continued and left alone by the commands that made them, wherever they lie now.

Whatever is computed anew is compared to the bit where that is possible: on the kind of machine that recorded
old_folders.json, with the same libraries. Elsewhere it must be as good as equal.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import golden_files
import golden_old
import numpy as np
import old_folders
import old_words
import pytest
from safetensors.numpy import load_file

from megasynth_attr.dataset.verify import verify_dataset

RECORDED = golden_files.read("old_folders")
SAME_MACHINE = RECORDED["machine"] == golden_files.machine()
NOTHING_TO_DO = "nothing to do"
PAGES = ("comparison.json", "comparison.md", "index.html", "chapter.json")  # written anew: texts may change


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stored folders, which is the current folder."""
    with old_folders.copied(tmp_path):
        pass
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(program: str, words: tuple[str, ...]) -> old_folders.Said:
    said = old_folders.call(program, words)
    assert said.code == 0, said.out + said.err
    return said


def assert_same_tensors(first: str, second: str) -> None:
    """Assert that two safetensors files hold the same: to the bit, or nearly on another machine."""
    one, two = load_file(first), load_file(second)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        if SAME_MACHINE:
            assert np.array_equal(tensor, two[name]), f"{first}: {name}"
        else:
            assert np.allclose(tensor, two[name], rtol=1e-3, atol=1e-4), f"{first}: {name}"


def assert_as_recorded(recorded: dict[str, float], now: dict[str, float]) -> None:
    assert recorded.keys() == now.keys()
    if SAME_MACHINE:
        assert golden_files.changed(recorded, now) == []
    assert [key for key in recorded if not golden_files.is_close(recorded[key], now[key])] == []


def test_nothing_names_a_folder_of_the_machine_that_wrote_it() -> None:
    for name, content in old_folders.files(".").items():
        assert b"/work" not in content and b"/tmp" not in content, name


def test_a_dataset_is_verified_and_reported() -> None:
    before = old_folders.files("data", but=("verify.json", "dataset.json", "index.html"))
    said = done("pipeline", (*old_words.FIRST_SCENES, "stages=verify,report"))
    assert "texture_00: passed" in said.out and "texture_01: passed" in said.out
    after = old_folders.files("data", but=("verify.json", "dataset.json", "index.html"))
    assert {name: after[name] for name in before} == before
    added = {"dataset.json": {"checksum"}, "verify.json": {"depth_compared"}}  # written since 0.1.0
    for name, keys in added.items():  # the isolation measured anew is the same
        path = f"data/texture_00/{name}"
        stored, now = (json.loads(folder.joinpath(path).read_text()) for folder in (old_folders.STORED, Path()))
        assert now.keys() - stored.keys() == keys
        assert golden_files.changed(stored, {key: now[key] for key in stored}) == []


def test_a_dataset_is_verified_as_it_is() -> None:
    report = verify_dataset(Path("data/texture_00"), progress=False, write=False)
    assert report.passed and [finding.message for finding in report.findings if finding.check == "record"] == [
        "dataset.json has no checksum (0.1.0 wrote none), so nothing says whether its licences were changed"
    ]


@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="no module bpy")
def test_an_unfinished_dataset_is_continued() -> None:
    first = old_folders.files(golden_old.FIRST, "data/texture_01")
    said = done("pipeline", golden_old.SECOND_SCENE)
    assert "2 selected, 1 complete, 1 to render" in said.out
    assert old_folders.files(golden_old.FIRST, "data/texture_01") == first
    now = golden_old.second_scene()
    # Cycles has another kernel for another kind of processor, with other last bits
    compared = [name for name in now if SAME_MACHINE or not name.endswith(".exr")]
    assert {name: now[name] for name in compared} == {name: RECORDED["second_scene"][name] for name in compared}
    said = done("pipeline", (*old_words.DATA, "datasets=0", "stages=generate,verify"))
    assert "nothing to render" in said.out and "texture_00: passed" in said.out and "2 of 2" in said.out


def test_an_unfinished_run_is_continued_to_the_same_end() -> None:
    said = done("finetune", old_words.UNFINISHED)
    assert "continuing at step 3 of 12, from <here>/runs/unfinished/checkpoints/step_00000003" in said.err
    finished, continued = Path("runs/finished"), Path("runs/unfinished")
    names = sorted(path.relative_to(finished) for path in finished.rglob("*.safetensors"))
    assert names == sorted(path.relative_to(continued) for path in continued.rglob("*.safetensors"))
    for name in names:
        if name.name != "random.safetensors" or SAME_MACHINE:
            assert_same_tensors(str(finished / name), str(continued / name))
    expected, found = (json.loads((folder / "done.json").read_text()) for folder in (finished, continued))
    added = {"base_losses", "last_losses"}  # written since 0.1.0, which did not measure the base model
    assert found.keys() - expected.keys() == added and found["base_losses"] is None
    found = {key: value for key, value in found.items() if key not in added}
    if SAME_MACHINE:
        assert golden_files.changed(expected, found) == []
    assert expected["identity"] == found["identity"]
    assert golden_files.is_close(expected["objective"], found["objective"])


@pytest.mark.parametrize("words", [old_words.FINISHED, *map(old_words.mode, old_words.MODES)], ids=lambda w: w[-1])
def test_a_finished_run_is_done(words: tuple[str, ...]) -> None:
    before = old_folders.files("runs")
    assert NOTHING_TO_DO in done("finetune", words).err
    assert old_folders.files("runs") == before


def test_a_cluster_is_done() -> None:
    before = old_folders.files("cluster")
    said = done("cluster", old_words.CLUSTER)
    assert said.out.count("done before") == 2 and said.err.count(NOTHING_TO_DO) == 2
    assert old_folders.files("cluster") == before


def test_subspaces_are_done() -> None:
    before = old_folders.files("subspaces")
    assert "already mined: <here>/subspaces" in done("mine", old_words.SUBSPACES).out
    assert old_folders.files("subspaces") == before


def test_half_mined_subspaces_are_continued_to_the_same_bases() -> None:
    layers = sorted(Path("half_mined/layers").iterdir())
    assert len(layers) == 3
    assert "mined: <here>/half_mined" in done("mine", old_words.HALF_MINED).out
    for name in ("texture", "all"):
        assert_same_tensors(f"subspaces/{name}.safetensors", f"half_mined/{name}.safetensors")
    assert not Path("half_mined/layers").exists()


def test_a_basis_is_shown_and_made_again() -> None:
    shown = done("basis", ("show=subspaces/all.safetensors",)).out
    assert "attributes:    texture" in shown and "extractor:     irls" in shown
    done("basis", (*old_words.RANDOM_BASIS, "out=again.safetensors"))
    assert_same_tensors("basis/random.safetensors", "again.safetensors")


def test_a_comparison_is_done() -> None:
    before = old_folders.files("comparison")
    said = done("compare", old_words.COMPARE)
    assert said.err.count(NOTHING_TO_DO) == 3 and "4 runs, 0 failed" in said.out
    after = old_folders.files("comparison")
    assert {name for name in before if before[name] != after[name]} <= {f"comparison/{page}" for page in PAGES}
    assert {name.split("/")[1] for name in after.keys() - before.keys()} == {"pictures"}  # were left out
    numbers, now = (json.loads(files["comparison/comparison.json"]) for files in (before, after))
    for record in (numbers, now):
        for metric in record["metrics"].values():
            del metric["meaning"]  # a text
    assert {key: now[key] for key in numbers} == numbers


def test_a_comparison_takes_another_method() -> None:
    before = old_folders.files("comparison/runs")
    said = done("compare", (*old_words.COMPARE, "methods=[heads]"))
    assert "5 runs" in said.out or "1 runs, 0 failed" in said.out
    after = old_folders.files("comparison/runs")
    assert {name: after[name] for name in before} == before
    record = json.loads(Path("comparison/compare.json").read_text())
    assert record["order"] == ["base", "lora-1", "subspace", "random", "heads"]


@pytest.mark.parametrize("adapter", golden_old.ADAPTERS, ids=lambda name: name or "base")
def test_an_adapter_is_loaded_and_does_what_it_did(adapter: str) -> None:
    assert_as_recorded(RECORDED["evaluations"][adapter], golden_old.evaluation(adapter))


def test_every_adapter_does_something() -> None:
    base = RECORDED["evaluations"][""]
    assert [name for name, numbers in RECORDED["evaluations"].items() if name and numbers == base] == []


def test_an_adapter_in_a_basis_is_exported_as_lora() -> None:
    done("export_lora", ("adapter=runs/subspace/adapter", "basis=subspaces/all.safetensors", "out=exported"))
    config = json.loads(Path("exported/adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert Path("exported/adapter_model.safetensors").is_file()
