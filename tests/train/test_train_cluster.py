"""A cluster: one adapter per dataset from one manifest, continued, sharded, and not lost to one bad dataset."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "dataset"))  # the generator's ray-cast test datasets

import synthetic

from megasynth_attr.core.command.program import parse
from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem, ExitCode, Interrupted, run_main
from megasynth_attr.core.files import json_bytes
from megasynth_attr.dataset.writer import finalise, open_for_writing
from megasynth_train import cluster
from megasynth_train.cluster import Outcome, run_cluster
from megasynth_train.training import at_once, cluster_manifest
from megasynth_train.training.cluster_manifest import ClusterSettings, adapter_seed
from megasynth_train.training.processes import make_accelerator

NAMES = ("texture_00", "texture_01", "texture_02")
WORDS = (
    "model=vggt-tiny", "rank=2", "steps=3", "lr=1e-3", "workers=0", "device=cpu", "run.progress=false", "run.threads=1",
    "data.width_px=56", "data.aspect=0.75", "data.views=2", "data.images_per_step=2", "data.validation_share=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ray-cast datasets; not to be changed."""
    out = tmp_path_factory.mktemp("experiment")
    settings = synthetic.config("dataset_count=3", "scene_count=1", "frames=3")
    for index in range(len(NAMES)):
        folder = open_for_writing(settings, out, index)
        synthetic.write_scene(settings, folder, replace(synthetic.scene(settings, 0), dataset_index=index))
        finalise(folder, synthetic.MATERIALS)
    return out


@pytest.fixture(scope="module")
def whole(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    """The cluster trained in one go; not to be changed."""
    out = tmp_path_factory.mktemp("clusters") / "whole"
    return out, run_cluster(settings(experiment, out))


def settings(experiment: Path, out: Path, *words: str) -> ClusterSettings:
    return parse(ClusterSettings, [f"experiment={experiment}", f"out={out}", *WORDS, *words], cluster.HELP)


def weights(out: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(out / name / "adapter" / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def status(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {outcome.name: outcome.status for outcome in outcomes}


def test_one_adapter_per_dataset_each_with_its_own_seed(whole: tuple[Path, list[Outcome]], experiment: Path) -> None:
    out, outcomes = whole
    assert status(outcomes) == dict.fromkeys(NAMES, "trained")
    manifest = json.loads((out / "cluster.json").read_text())
    assert sorted(manifest["adapters"]) == list(NAMES)
    seeds = {entry["seed"] for entry in manifest["adapters"].values()}
    assert len(seeds) == 3 and seeds == {adapter_seed(0, name) for name in NAMES}
    for name in NAMES:
        record = json.loads((out / name / "adapter" / "adapter.json").read_text())
        dataset = json.loads((experiment / name / "dataset.json").read_text())
        assert record["seed"] == record["settings"]["seed"] == manifest["adapters"][name]["seed"]
        assert record["training"]["dataset"] == name and record["training"]["attribute"] == "texture"
        assert record["training"]["fingerprint"] == dataset["fingerprint"]
        assert record["training"]["content_sha256"] == manifest["adapters"][name]["content_sha256"]
        layers = json.loads((out / name / "adapter" / "drift.json").read_text())["layers"]
        assert len(layers) > 32 and all(layer["relative_change"] > 0 for layer in layers)
    starts = [weights(out, name)["base_model.model.aggregator.frame_blocks.0.attn.qkv.lora_A.weight"] for name in NAMES]
    assert not torch.allclose(starts[0], starts[1], atol=0.01)  # two steps of 1e-3 cannot have parted them


def test_the_seeds_of_adapters_are_spread() -> None:
    seeds = [adapter_seed(seed, f"texture_{index:02d}") for seed in range(10) for index in range(100)]
    assert len(set(seeds)) == 1000 and all(0 <= seed < 2**53 for seed in seeds)


def test_a_second_call_finds_everything_done(
    whole: tuple[Path, list[Outcome]], experiment: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(whole[0], tmp_path / "copy"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    outcomes = run_cluster(settings(experiment, out))
    assert status(outcomes) == dict.fromkeys(NAMES, "done before")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    table = cluster.summary(outcomes[:2], out).splitlines()
    assert [line.split()[0] for line in table] == ["dataset", *NAMES]
    assert "done before" in table[1] and "°" in table[1] and "not in this shard" in table[3]


@pytest.mark.slow
def test_an_interrupted_cluster_continues_to_the_same_adapters(
    whole: tuple[Path, list[Outcome]], experiment: Path, tmp_path: Path
) -> None:
    out, returned = tmp_path / "interrupted", threading.Event()
    chosen = "datasets=[texture_01,texture_00]"

    def stop_in_the_first_run() -> None:
        while not returned.is_set():
            if (out / "texture_00" / "settings.json").exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.001)

    watcher = threading.Thread(target=stop_in_the_first_run)
    watcher.start()
    try:
        with pytest.raises(Interrupted, match="saved"):
            run_cluster(settings(experiment, out, chosen))
    finally:
        returned.set()
        watcher.join()
    assert (out / "cluster.json").is_file() and not (out / "texture_00" / "done.json").exists()
    assert list((out / "texture_00" / "checkpoints").glob("step_*")) and not (out / "texture_01").exists()
    assert status(run_cluster(settings(experiment, out, chosen))) == dict.fromkeys(NAMES[:2], "trained")
    assert all(same(weights(out, name), weights(whole[0], name)) for name in NAMES[:2])


def test_adapters_trained_at_once_or_in_shards_are_the_same_even_after_a_process_was_killed(
    whole: tuple[Path, list[Outcome]], experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, returned = tmp_path / "at_once", threading.Event()

    def kill_all_after_the_first_adapter() -> None:
        while not returned.is_set() and not list(out.glob("*/done.json")):
            time.sleep(0.001)
        for process in multiprocessing.active_children():
            process.kill()

    watcher = threading.Thread(target=kill_all_after_the_first_adapter)
    watcher.start()
    try:
        with pytest.raises(EnvironmentProblem, match=r"worked on texture_0\d was killed .*e\.g\. parallel=1; running"):
            run_cluster(settings(experiment, out, "parallel=2", "run.progress=true"))
    finally:
        returned.set()
        watcher.join()
    shown = capsys.readouterr().err
    assert "2 at once" in shown and re.search(r"texture_0\d: fp32", shown) and "/9 [" in shown
    second, first = (run_cluster(settings(experiment, out, shard)) for shard in ("shard=2/2", "shard=1/2"))
    assert [o.name for o in second] == ["texture_01"] and [o.name for o in first] == ["texture_00", "texture_02"]
    assert set(status([*first, *second]).values()) == {"done before", "trained"}
    assert all(same(weights(out, name), weights(whole[0], name)) for name in NAMES)


def test_how_many_are_trained_at_once(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, steps = make_accelerator("cpu"), "steps=100"
    monkeypatch.setattr(at_once, "available_cores", lambda: 8)
    monkeypatch.setattr(at_once, "available_memory", lambda: 10**12)

    def planned(unfinished: int, *words: str) -> tuple[int, int]:
        found = at_once.plan(settings(experiment, Path("out"), "run.threads=0", *words), accelerator, unfinished)
        return found.at_once, found.each.run.threads

    assert planned(20, steps) == (8, 1) and planned(3, steps) == (3, 1) and planned(0, steps) == (1, 1)
    assert planned(20, steps, "run.threads=3") == (2, 3) and planned(20, "parallel=30", "steps=1") == (20, 1)
    assert planned(5, "steps=7") == (1, 1) and planned(20, steps, "parallel=1") == (1, 1)  # the threads are the same
    assert planned(20, steps, "model=vggt-1b") == (1, 0) and planned(20, "model=vggt-1b", "parallel=2") == (2, 0)
    monkeypatch.setattr(at_once, "available_memory", lambda: 2 * 10**9)
    assert planned(20, steps) == (3, 1) and planned(20, steps, "data.width_px=980", "data.images_per_step=48")[0] == 1
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert planned(20, steps) == (1, 0)
    with pytest.raises(ConfigError, match="parallel=2 does not go with torchrun"):
        planned(20, "parallel=2")


@pytest.mark.slow
def test_one_bad_dataset_does_not_cost_the_others(
    whole: tuple[Path, list[Outcome]],
    experiment: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged, out = Path(shutil.copytree(experiment, tmp_path / "experiment")), tmp_path / "out"
    file = next((damaged / "texture_00").rglob("cameras.json"))
    file.write_text("{")
    words = [f"experiment={damaged}", f"out={out}", *WORDS, "datasets=[texture_00,texture_02]"]
    assert run_main(cluster.main, words) == ExitCode.SCENES_FAILED
    printed = capsys.readouterr()
    assert "1 of 2 adapters failed: texture_00: DatasetError" in printed.err and "cameras.json" in printed.err
    assert "failed" in printed.out and same(weights(out, "texture_02"), weights(whole[0], "texture_02"))
    shutil.copytree(experiment / "texture_00", damaged / "texture_00", dirs_exist_ok=True)
    outcomes = run_cluster(parse(ClusterSettings, words, cluster.HELP))
    assert status(outcomes) == {"texture_00": "trained", "texture_02": "done before"}
    assert same(weights(out, "texture_00"), weights(whole[0], "texture_00"))


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("rank=3", "adapter.rank"),
        ("seed=1", "seed is 0 there and 1 now"),
        ("lr=1e-4", "optim.lr"),
        ("run.seed=1", "run.seed"),
        ("model.seed=1", "base model"),
        ("datasets=texture_00", "datasets"),
    ],
)
def test_a_manifest_made_with_other_settings_is_refused(
    word: str, named: str, whole: tuple[Path, list[Outcome]], experiment: Path
) -> None:
    before = (whole[0] / "cluster.json").read_bytes()
    with pytest.raises(ConfigError, match=named):
        run_cluster(settings(experiment, whole[0], word))
    assert (whole[0] / "cluster.json").read_bytes() == before


def test_another_dataset_of_the_same_name_is_refused(
    whole: tuple[Path, list[Outcome]], experiment: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(experiment, tmp_path / "experiment"))
    file = other / "texture_01" / "dataset.json"
    record = json.loads(file.read_text())
    next(iter(record["scenes"].values()))["hashes"]["geometry"] = "0" * 64
    file.write_bytes(json_bytes(record))
    with pytest.raises(ConfigError, match="content of texture_01"):
        run_cluster(settings(other, whole[0]))
    del record["scenes"]
    file.write_bytes(json_bytes(record))
    with pytest.raises(DatasetError, match="not finished"):
        run_cluster(settings(other, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_same_datasets_elsewhere_and_free_keys_continue(
    whole: tuple[Path, list[Outcome]], experiment: Path, tmp_path: Path
) -> None:
    moved, out = (
        Path(shutil.copytree(experiment, tmp_path / "moved")),
        Path(shutil.copytree(whole[0], tmp_path / "out")),
    )
    outcomes = run_cluster(settings(moved, out, "run.log_every=1", "data.prefetch=3", "shard=3/3"))
    assert status(outcomes) == {"texture_02": "done before"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data=somewhere", "takes experiment="),
        ("adapter.seed=3", "seed="),
        ("datasets=texture_07", "it holds texture_00, texture_01, texture_02"),
        ("shard=4/3", "write i/n"),
    ],
)
def test_words_that_make_no_cluster_are_refused(word: str, message: str, experiment: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_cluster(settings(experiment, tmp_path / "out", word))
    assert not (tmp_path / "out" / "cluster.json").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.width_px=57", "use 56 or 70"),
        ("data.views=9", "less than the 9 views"),
        ("adapter.targets=nothing_like_this", "adapter.targets"),
        ("adapter.train_encoder=true", "needs mode=full"),
    ],
)
def test_settings_wrong_for_all_datasets_are_refused_before_the_manifest(
    word: str, message: str, experiment: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_cluster(settings(experiment, tmp_path / "out", word))
    assert not (tmp_path / "out").exists()


def test_a_command_can_be_corrected_until_an_adapter_has_begun(experiment: Path, tmp_path: Path) -> None:
    out, one = tmp_path / "out", "datasets=texture_01"
    wrong = run_cluster(settings(experiment, out, one, "data.views=8", "data.images_per_step=8"))
    assert status(wrong) == {"texture_01": "failed"} and "no usable scene" in wrong[0].message
    assert status(run_cluster(settings(experiment, out, one, "steps=1"))) == {"texture_01": "trained"}
    assert json.loads((out / "cluster.json").read_text())["settings"]["optim"]["steps"] == 1
    with pytest.raises(ConfigError, match=r"optim\.steps"):
        run_cluster(settings(experiment, out, one))


def test_a_manifest_replaced_meanwhile_is_told(experiment: Path, tmp_path: Path) -> None:
    first = cluster_manifest.open_manifest(tmp_path, settings(experiment, tmp_path))
    cluster_manifest.check_unchanged(tmp_path, first)
    cluster_manifest.open_manifest(tmp_path, settings(experiment, tmp_path, "rank=3"))
    with pytest.raises(ConfigError, match="was replaced by a command with other settings"):
        cluster_manifest.check_unchanged(tmp_path, first)


@pytest.mark.parametrize("key", ["identity", "adapters"])
def test_a_manifest_without_a_key_is_damaged(
    key: str, whole: tuple[Path, list[Outcome]], experiment: Path, tmp_path: Path
) -> None:
    manifest = json.loads((whole[0] / "cluster.json").read_text())
    del manifest[key]
    (tmp_path / "cluster.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match=rf"cluster\.json is damaged: {key} is missing"):
        run_cluster(settings(experiment, tmp_path))


def test_an_out_that_is_no_cluster_is_refused_and_left_as_it_is(experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for folder, named in ((experiment, ""), (experiment / "texture_00", "dataset"), (tmp_path, "thesis")):
        before = sorted(folder.rglob("*"))
        with pytest.raises(ConfigError, match=rf"holds {named}.* it is no cluster; choose another out="):
            run_cluster(settings(experiment, folder))
        assert sorted(folder.rglob("*")) == before


def test_experiment_and_out_must_be_given() -> None:
    for given, missing in [([], "experiment="), (["out=somewhere"], "experiment="), (["experiment=somewhere"], "out=")]:
        with pytest.raises(ConfigError, match=f"{missing} is missing"):
            run_cluster(parse(ClusterSettings, given, cluster.HELP))


def test_help_names_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cluster.main(["--help"])
    text = capsys.readouterr().out
    assert "experiment" in text and "shard" in text and "adapter.rank" in text and "one adapter per dataset" in text
