"""A comparison from trainings to tables: complete, continued, extended, and not lost to one bad method."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))

from compare_runs import settings, words, write_experiment

from megasynth_attr.core.errors import ConfigError, DatasetError, ExitCode, Interrupted, run_main
from megasynth_attr.core.pages.chapters import read_chapter
from megasynth_train.compare import __main__ as program
from megasynth_train.compare.run import Comparison, compare

METHODS = "methods=[base,heads,lora-2]"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ray-cast datasets; not to be changed."""
    return write_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def whole(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three methods with two seeds, in one go, with pages; not to be changed."""
    out = tmp_path_factory.mktemp("comparisons") / "whole"
    return compare(settings(experiment, out, METHODS, "seeds=[0,1]", "test.page=true"))


def status(done: Comparison) -> dict[str, str]:
    return {outcome.name: outcome.status for outcome in done.outcomes}


def record(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    return result


def weights(out: Path, method: str, seed: int) -> dict[str, torch.Tensor]:
    return load_file(out / "runs" / method / f"seed_{seed}" / "adapter" / "adapter_model.safetensors")


def results(out: Path, method: str, seed: int) -> dict[str, Any]:
    file = out / "runs" / method / f"seed_{seed}" / "evaluation" / "results.json"
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def copy_of(done: Comparison, to: Path) -> Path:
    return Path(shutil.copytree(done.report.out, to))


def test_every_run_is_trained_measured_and_in_the_tables(whole: Comparison) -> None:
    out, found = whole.report.out, record(whole.report.out)
    assert set(status(whole).values()) == {"trained"} and not whole.failed
    runs = [(row["method"], row["seed"]) for row in found["rows"]]
    assert runs == [("base", None), ("heads", 0), ("heads", 1), ("lora-2", 0), ("lora-2", 1)]
    parameters = {row["method"]: row["parameters"] for row in found["rows"]}
    assert parameters["base"] == {"aggregator": 0, "heads": 0, "encoder": 0}
    assert parameters["heads"]["aggregator"] == 0 < parameters["heads"]["heads"] == parameters["lora-2"]["heads"]
    assert parameters["lora-2"]["aggregator"] > 0
    for row in found["rows"]:
        measured = json.loads((out / row["evaluation"] / "results.json").read_text())
        assert row["metrics"]["accuracy"] == pytest.approx(measured["average"]["points"]["accuracy_mean"]["mean"])
        assert row["metrics"]["abs_rel"] == pytest.approx(measured["average"]["depth"]["median"]["abs_rel"]["mean"])
        assert (row["seconds"] is None) == (row["seed"] is None) == (row["objective"] is None)
    assert found["common_scenes"] == ["texture_01/000000", "texture_01/000001"] and not found["missing"]
    assert len(found["differences"]) == len(found["intervals"]) == 2 * 5 and found["reference"] == "base"
    assert {(one["replicates"], one["scenes"], one["comparisons"]) for one in found["intervals"]} == {(2, 2, 10)}
    assert not same(weights(out, "lora-2", 0), weights(out, "lora-2", 1))


def test_the_seed_reaches_data_and_initial_values(whole: Comparison) -> None:
    for seed in (0, 1):
        folder = whole.report.out / "runs" / "lora-2" / f"seed_{seed}"
        used = json.loads((folder / "settings.json").read_text())
        assert (used["run"]["seed"], used["adapter"]["seed"], used["optim"]["steps"]) == (seed, seed, 2)


def test_the_report_links_what_exists(whole: Comparison) -> None:
    out, chapter = whole.report.out, read_chapter(whole.report.out)
    assert chapter is not None and len(chapter.tables[0].rows) == 3
    named = [link.file for link in chapter.links] + [picture.file for picture in chapter.pictures]
    assert len([name for name in named if name.endswith("evaluation/index.html")]) == 3
    assert all((out / name).is_file() for name in named)
    assert "| lora-2 |" in (out / "comparison.md").read_text()
    assert sorted(p.name for p in (out / "pictures").iterdir()) == [
        "abs_rel.png", "accuracy.png", "curves.png", "intervals.png", "methods.png",
    ]  # fmt: skip


def test_a_second_call_finds_everything_done(whole: Comparison, experiment: Path, tmp_path: Path) -> None:
    out = copy_of(whole, tmp_path / "copy")
    files = [*out.rglob("*.safetensors"), *out.rglob("results.json")]
    before = {path: path.stat().st_mtime_ns for path in files}
    again = compare(settings(experiment, out, METHODS, "seeds=[0,1]", "test.page=true"))
    assert set(status(again).values()) == {"done before"}
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert record(out) == record(whole.report.out)


@pytest.mark.slow
def test_methods_and_seeds_are_added_and_old_ones_stay(whole: Comparison, experiment: Path, tmp_path: Path) -> None:
    out = copy_of(whole, tmp_path / "copy")
    shards = [
        compare(settings(experiment, out, "methods=[fast]", "define.fast.like=lora-2", "define.fast.lr=1e-2",
                         "seeds=[0,2]", f"shard={i}/2"))
        for i in (2, 1)
    ]  # fmt: skip
    assert [o.name for done in shards for o in done.outcomes] == ["fast, seed 2", "fast, seed 0"]
    found = record(out)
    assert [row["method"] for row in found["rows"]].count("fast") == 2 and len(found["rows"]) == 7
    # seed 2 is new to the comparison: the older methods lack it, which is said and not hidden
    assert {(one["method"], one["seed"]) for one in found["missing"]} >= {("heads", 2), ("lora-2", 2), ("fast", 1)}
    assert same(weights(out, "lora-2", 0), weights(whole.report.out, "lora-2", 0))
    assert not same(weights(out, "fast", 0), weights(out, "lora-2", 0))


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("steps=3", "optim.steps"),
        ("data.images_per_step=4", "data.images_per_step"),
        ("test.views=3", "test.views"),
        ("model.seed=1", "the base model"),
        ("define.lora-2.lr=1e-5", "method lora-2.optim.lr"),
        ("define.heads.adapter.head_rank=3", "method heads.adapter.head_rank"),
        ("test.scenes=0", None),
    ],
)
def test_a_changed_manifest_is_refused(
    word: str, named: str | None, whole: Comparison, experiment: Path, tmp_path: Path
) -> None:
    manifest = whole.report.out / "compare.json"
    before = manifest.read_bytes()
    with pytest.raises(ConfigError, match=f"{named or 'test.scenes'}.* is "):
        compare(settings(experiment, whole.report.out, METHODS, "seeds=[0,1]", word))
    assert manifest.read_bytes() == before


def test_other_test_data_are_refused(whole: Comparison, experiment: Path) -> None:
    with pytest.raises(ConfigError, match=r"content of test\.data"):
        compare(settings(experiment, whole.report.out, METHODS, f"test={experiment / 'texture_00'}"))


@pytest.mark.slow
def test_a_failing_method_is_named_and_the_others_are_there(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = ["methods=[wild,heads]", "seeds=[0]", "define.wild.like=lora", "define.wild.lr=1e30"]
    line = words(experiment, out, *given, "steps=4", "optim.max_bad_steps=0")
    assert run_main(program.main, line) == ExitCode.SCENES_FAILED
    printed = capsys.readouterr()
    assert "1 of 2 runs failed: wild, seed 0: Diverged" in printed.err and "not finite" in printed.err
    found = record(out)
    assert [row["method"] for row in found["rows"]] == ["heads"]
    assert found["missing"][0]["method"] == "wild" and "not finite" in found["missing"][0]["reason"]
    assert "wild, seed 0" in (out / "index.html").read_text() and "There is nothing to compare" in printed.out


@pytest.mark.slow
def test_an_interrupted_comparison_continues_to_the_same_result(
    whole: Comparison, experiment: Path, tmp_path: Path
) -> None:
    out, returned = tmp_path / "out", threading.Event()
    given = settings(experiment, out, METHODS, "seeds=[0]")

    def stop_in_a_training() -> None:
        while not returned.is_set():
            if (out / "runs" / "lora-2" / "seed_0" / "settings.json").exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.001)

    watcher = threading.Thread(target=stop_in_a_training)
    watcher.start()
    try:
        with pytest.raises(Interrupted):
            compare(replace(given, parallel=2))
    finally:
        returned.set()
        watcher.join()
    assert (out / "compare.json").is_file() and not (out / "comparison.json").exists()
    assert list((out / "runs").rglob("evaluation/results.json"))
    assert list((out / "runs" / "lora-2" / "seed_0").glob("checkpoints/step_*"))  # not killed, but asked to stop
    again = compare(given)  # one after another
    assert set(status(again).values()) == {"done before", "trained"}
    left, right = (results(folder, "heads", 0) for folder in (out, whole.report.out))
    assert left["average"] == right["average"]
    assert all(same(weights(out, name, 0), weights(whole.report.out, name, 0)) for name in ("heads", "lora-2"))


def test_an_evaluation_of_another_adapter_is_made_again(whole: Comparison, experiment: Path, tmp_path: Path) -> None:
    out = copy_of(whole, tmp_path / "copy")
    runs = out / "runs" / "lora-2"
    shutil.rmtree(runs / "seed_0" / "evaluation")
    shutil.copytree(runs / "seed_1" / "evaluation", runs / "seed_0" / "evaluation")
    again = compare(settings(experiment, out, METHODS, "seeds=[0,1]", "test.page=true"))
    assert status(again)["lora-2, seed 0"] == "trained" and status(again)["lora-2, seed 1"] == "done before"
    assert record(out)["rows"][3]["metrics"] == record(whole.report.out)["rows"][3]["metrics"]


def test_a_damaged_run_is_named_and_nothing_of_it_is_overwritten(
    whole: Comparison, experiment: Path, tmp_path: Path
) -> None:
    out = copy_of(whole, tmp_path / "copy")
    results = out / "runs" / "lora-2" / "seed_0" / "evaluation" / "results.json"
    results.write_text("{")
    again = compare(settings(experiment, out, METHODS, "seeds=[0,1]", "test.page=true"))
    assert [outcome.name for outcome in again.failed] == ["lora-2, seed 0"] and "results.json" in again.failed[
        0
    ].message
    assert results.read_text() == "{"
    (out / "compare.json").write_text("{")
    with pytest.raises(DatasetError, match=r"compare\.json is damaged"):
        compare(settings(experiment, out, METHODS, "seeds=[0,1]"))


def test_scenes_that_are_trained_on_are_counted(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = compare(settings(experiment, out, "methods=[base]", f"test={experiment / 'texture_00'}"))
    assert len(done.report.manifest["scenes"]["seen"]) == 2
    assert "2 of the test scenes also served for training" in (out / "index.html").read_text()


def test_the_plan_writes_nothing(experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(program.main, words(experiment, tmp_path / "out", METHODS, "plan=true")) == ExitCode.DONE
    printed = capsys.readouterr().out
    assert "6 trainings of 2 steps" in printed and "lora-2" in printed and "not measured" in printed
    assert not (tmp_path / "out").exists()


def test_what_no_model_takes_is_refused_before_anything_is_written(experiment: Path, tmp_path: Path) -> None:
    for word, message in (
        ("methods=[heads,pissa-128]", "method pissa-128: .*singular vectors"),
        ("methods=[heads,lora-99999]", "method lora-99999: .*more than any adapted layer can use"),
        ("methods=hads", "heads"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare(settings(experiment, tmp_path / "out", word))
    with pytest.raises(DatasetError):
        compare(settings(experiment, tmp_path / "out", METHODS, f"test={tmp_path}"))
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_no_comparison_is_left_as_it_is(experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds thesis\.txt.* it is no comparison; choose another out="):
        compare(settings(experiment, tmp_path, METHODS))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="is a file"):
        compare(settings(experiment, tmp_path / "thesis.txt", METHODS))


def test_help_names_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("methods=", "define=", "test.views", "adapter.rank", "short: test=", "plan="))


@pytest.mark.slow
def test_every_run_is_evaluated_across_domains_too(experiment: Path, tmp_path: Path) -> None:
    out, given = tmp_path / "out", ("methods=[base,heads]", "seeds=[0]")
    before = compare(settings(experiment, out, *given))
    assert not (out / "across").exists()
    elsewhere = f"across.data={experiment / 'texture_00'}"
    done = compare(settings(experiment, out, *given, elsewhere))
    assert before.report.results.rows == done.report.results.rows  # nothing is trained or measured anew
    other = record(out / "across")
    assert other["common_scenes"] == ["texture_00/000000", "texture_00/000001"] != record(out)["common_scenes"]
    for row in other["rows"]:
        measured = json.loads((out / "across" / row["evaluation"] / "results.json").read_text())
        mean = sum(scene["points"]["accuracy_mean"] for scene in measured["scenes"]) / len(measured["scenes"])
        assert row["metrics"]["accuracy"] == pytest.approx(mean)
    chapter = read_chapter(out)
    assert chapter is not None and len(chapter.tables) == 2 and "across/index.html" in {x.file for x in chapter.links}
    assert "On data of another domain" in (out / "index.html").read_text()
    assert status(compare(settings(experiment, out, *given, elsewhere))) == {
        "base": "done before",
        "heads, seed 0": "done before",
    }
    with pytest.raises(ConfigError, match=r"across\.protocol=thuman needs across\.data="):
        settings(experiment, out, *given, "across.protocol=thuman").check()
