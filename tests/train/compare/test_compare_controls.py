"""Models that are not trained: against dense matrices, bases mined by the program, and in a comparison."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "subspace")]

from compare_runs import linears, settings, write_experiment
from test_mine_evidence import seeds
from written_cluster import random_adapter, write_adapter, write_cluster

from megasynth_attr.core.command.program import parse
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train import mine
from megasynth_train.compare.bases import open_bases
from megasynth_train.compare.controls import Origin, mean_update, ties
from megasynth_train.compare.run import compare
from megasynth_train.compare.tuning import Trial, best_rate, rates_table, read_trials, write_trial
from megasynth_train.subspace.basis_file import read_basis
from megasynth_train.subspace.core import Update
from megasynth_train.subspace.peft_folder import open_adapter
from megasynth_train.training.base_model import base_model
from megasynth_train.training.settings import ModelSettings

FAST = ("dimension=2", "mining.null_draws=2", "mining.splits=0", "workers=1", "run.figures=false", "run.progress=false")


def mined(cluster: Path | str, out: Path, *words: str) -> Path:
    mine.run(parse(mine.MineSettings, [f"cluster={cluster}", f"out={out}", *FAST, *words], mine.HELP))
    return out


def origin(subspaces: Path, left_out: int = 1) -> Origin:
    return Origin(open_bases(str(subspaces), str(subspaces / "unused")), left_out)


def dense(folder: Path) -> dict[str, np.ndarray]:
    """Return the dW of a stored adapter, layer by layer."""
    stored = open_adapter(folder, "a", "a", lambda name: True)
    updates = {module: stored.update(module) for module in stored.shapes}
    return {module: update.left @ update.right.T for module, update in updates.items()}


@pytest.fixture(scope="module")
def subspaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases of three adapters each of two attributes; not to be changed."""
    folder = tmp_path_factory.mktemp("mining")
    return mined(write_cluster(folder / "cluster", count=3), folder / "subspaces")


def test_what_is_held_out_is_projected_on_a_basis_that_never_saw_it(subspaces: Path, tmp_path: Path) -> None:
    cluster = subspaces.parent / "cluster"
    shutil.copytree(cluster, tmp_path / "cluster", ignore=lambda _, names: [n for n in names if n == "texture_00"])
    others = read_basis(mined(tmp_path / "cluster", tmp_path / "without") / "all.safetensors")
    made, found = origin(subspaces), {}
    for part in ("", "-mean", "-projected", "-projected-mean", "-random", "-random-mean", "-whole"):
        with made.adapter(f"held-out{part}", "texture_00", tmp_path, progress=False) as folder:
            found[part] = dense(Path(folder))
    assert not (tmp_path / "tmp").exists()
    own, *rest = (dense(cluster / f"texture_0{number}") for number in range(3))
    for module, update in own.items():
        mean = (rest[0][module] + rest[1][module]) / 2
        layer = others.layers[module]
        left, right = (side.astype(np.float64) for side in (layer.left, layer.right))

        def inside(change: np.ndarray, left: np.ndarray = left, right: np.ndarray = right) -> np.ndarray:
            return left @ left.T @ change @ right @ right.T

        expected = {
            "": update,
            "-whole": update,
            "-mean": mean,
            "-projected": inside(update),
            "-projected-mean": mean + inside(update - mean),
        }
        for part, matrix in expected.items():
            np.testing.assert_allclose(found[part][module], matrix, atol=2e-5)
        for part, whole in (("-random", update), ("-random-mean", update - mean)):
            kept = found[part][module] - (mean if part == "-random-mean" else 0)
            assert np.linalg.matrix_rank(kept, 1e-4) <= layer.dimension
            left_part = np.sum(kept * (whole - kept))  # a projection: what is kept and what is not are orthogonal
            assert abs(left_part) < 1e-3 * np.sum(whole**2) and np.linalg.norm(kept) < np.linalg.norm(whole)


def test_means_are_means_and_ties_is_that_of_the_paper(subspaces: Path, tmp_path: Path) -> None:
    made, cluster = origin(subspaces), subspaces.parent / "cluster"
    all_of = {path.name: dense(path) for path in sorted(cluster.iterdir())}
    for method, names in (("mean", list(all_of)), ("mean-texture", [n for n in all_of if n.startswith("texture")])):
        assert list(made.made_of(method)["adapters"]) == names
        with made.adapter(method, "", tmp_path, progress=False) as folder:
            for module, matrix in dense(Path(folder)).items():
                np.testing.assert_allclose(matrix, np.mean([all_of[n][module] for n in names], axis=0), atol=1e-5)
    rng = np.random.default_rng(0)
    updates = [Update(rng.normal(size=(9, 2)), rng.normal(size=(7, 2))) for _ in range(5)]
    kept = np.stack([update.left @ update.right.T for update in updates])
    for one in kept:  # trim, elect, merge
        one[np.abs(one) < np.sort(np.abs(one), axis=None)[-int(0.2 * one.size)]] = 0
    agree = np.sign(kept) == np.where(kept.sum(axis=0) >= 0, 1, -1)
    merged = (kept * agree).sum(axis=0) / np.maximum(agree.sum(axis=0), 1)
    found = ties(updates)  # here of full rank, so nothing is cut off
    np.testing.assert_allclose(found.left @ found.right.T, merged, atol=1e-5)
    cancelled = mean_update([updates[0], Update(-updates[0].left, updates[0].right)])
    assert np.abs(cancelled.left @ cancelled.right.T).max() < 1e-12


def test_adapters_whose_data_are_not_recorded_are_left_out_one_by_one(tmp_path: Path) -> None:
    cluster = write_cluster(tmp_path / "cluster", count=3)
    made = origin(mined(cluster, tmp_path / "subspaces"), left_out=2)
    assert made.made_of("held-out")["left_out"] == ["geometry_00", "geometry_01", "texture_00", "texture_01"]
    assert "left_out" not in made.made_of("mean") and made.others("texture_00") == ["texture_01", "texture_02"]


def test_seeds_of_one_dataset_are_left_out_together_and_different_data_come_first(tmp_path: Path) -> None:
    folders = seeds(tmp_path)
    made = origin(mined(f"[{folders[0]},{folders[1]}]", tmp_path / "subspaces", "mining.held_out=0"), left_out=3)
    members = made.made_of("held-out")["left_out"]
    assert members == ["geometry_00", "geometry_01", "geometry_00+1", "texture_00", "texture_01", "texture_02"]
    assert made.others("geometry_00+1") == ["geometry_01", "geometry_01+1"]
    with made.adapter("held-out-mean", "geometry_00+1", tmp_path, progress=False) as folder:
        others = [dense(of / "geometry_01" / "adapter") for of in folders]
        for module, matrix in dense(Path(folder)).items():
            np.testing.assert_allclose(matrix, (others[0][module] + others[1][module]) / 2, atol=1e-5)


def test_without_its_adapters_a_basis_has_no_controls(tmp_path: Path) -> None:
    cluster = write_cluster(tmp_path / "cluster", count=2)
    folder = mined(cluster, tmp_path / "subspaces")
    shutil.copytree(cluster / "texture_01", tmp_path / "kept")
    shutil.rmtree(cluster / "texture_01")
    with pytest.raises(DatasetError, match="no longer holds the adapters from which"):
        origin(folder).made_of("mean")
    cluster.rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"cannot be read in .*put them back, mine again.*or leave controls"):
        origin(folder).made_of("mean")
    with pytest.raises(ConfigError, match="is a single file; the controls mine the basis again"):
        origin(folder / "all.safetensors").made_of("mean")
    one = write_cluster(tmp_path / "single", count=1)
    with pytest.raises(ConfigError, match="all adapters of geometry were trained on the same data"):
        origin(mined(one, tmp_path / "of_one")).made_of("held-out")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ray-cast datasets; not to be changed."""
    return write_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def of_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases of adapters that fit the tiny model; not to be changed."""
    folder, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(3)
    shapes = linears(base_model(ModelSettings(size="vggt-tiny"), []))
    for name in ("camera_00", "camera_01"):
        updates = random_adapter(rng, {module: (m, n) for module, (m, n) in shapes.items()})
        write_adapter(folder / "cluster" / name, {k: Update(0.05 * u.left, 0.05 * u.right) for k, u in updates.items()})
    return mined(folder / "cluster", folder / "subspaces")


@pytest.mark.slow
def test_controls_are_measured_once_and_stand_beside_what_is_trained(
    experiment: Path, of_tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = settings(experiment, out, "methods=[base,mean,held-out,held-out-mean]", f"basis={of_tiny}", "seeds=[0]")
    done = compare(given)
    assert not done.failed, [outcome.message for outcome in done.failed]
    record = json.loads((out / "comparison.json").read_text())
    value = {row["method"]: row["metrics"]["accuracy"] for row in record["rows"]}
    assert not record["differences"] and len(record["intervals"]) == 5  # of mean: it has scenes, and no seeds
    text = (out / "comparison.md").read_text()
    assert "Neither is trained, so there are no seeds" in text and "One seed" not in text and "steps" not in text
    assert len(set(value.values())) == 4  # each changes the model, and in a way of its own
    asked = {(one["method"], one["reference"]) for one in record["contrasts"]}
    assert asked == {("held-out", "base"), ("held-out-mean", "held-out"), ("mean", "base")}
    row = next(row for row in record["rows"] if row["method"] == "held-out")
    assert (row["left_out"], row["evaluation"]) == ("camera_00", "runs/held-out/camera_00/evaluation")
    for name in ("comparison.md", "index.html"):
        assert "does an adapter of the cluster change anything here?" in (out / name).read_text()
        assert "There are only 2 test scenes" in (out / name).read_text()
    assert (out / "pictures" / "controls.png").is_file() and not (out / "tmp").exists()
    (out / "runs/mean/control.json").unlink()  # then nobody knows which adapter was measured
    again = {outcome.name: outcome.status for outcome in compare(given).outcomes}
    assert again.pop("mean") == "trained" and set(again.values()) == {"done before"}
    with pytest.raises(ConfigError, match=r"method held-out\.control\.left_out is"):
        compare(settings(experiment, out, "methods=[held-out]", f"basis={of_tiny}", "held_out=2"))


@pytest.mark.slow
def test_the_rate_that_is_best_on_validation_scenes_is_used_for_all_seeds(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rates = ("tune.lr=[1e-2,1e30]", "tune.share=0.8", "optim.max_bad_steps=0", "steps=3")
    given = settings(experiment, out, "methods=[lora-2]", "seeds=[1,2]", *rates)
    other = compare(settings(experiment, out, "methods=[lora-2]", "seeds=[1,2]", "shard=2/2", *rates))
    assert [one.status for one in other.outcomes] == ["failed"]
    assert "0 of the 2 learning rates" in other.failed[0].message
    done = compare(given)
    assert not done.failed, [outcome.message for outcome in done.failed]
    trials = json.loads((out / "comparison.json").read_text())["learning_rates"]["lora-2"]
    assert trials[0]["value"] > 0 and trials[1]["value"] is None and "not finite" in trials[1]["reason"]
    for seed in (1, 2):
        used = json.loads((out / f"runs/lora-2/seed_{seed}/settings.json").read_text())
        assert (used["optim"]["lr"], used["data"]["validation_share"]) == (1e-2, 0)
    assert "| lora-2 |" in (out / "comparison.md").read_text().split("## Learning rates")[1]
    assert "learning rates were tuned by one rule" in (out / "index.html").read_text()
    assert {outcome.status for outcome in compare(given).outcomes} == {"done before"}
    with pytest.raises(ConfigError, match=r"tune\.lr is"):
        compare(settings(experiment, out, "methods=[lora-2]", "seeds=[1,2]", "steps=3"))
    with pytest.raises(ConfigError, match="of them are test scenes"):
        seen = f"test={experiment / 'texture_00'}"
        compare(settings(experiment, tmp_path / "seen", "methods=[lora-2]", seen, *rates))
    with pytest.raises(ConfigError, match=r"a share of 0\.5 holds out none of data=: add scenes, or raise tune\.share"):
        compare(settings(experiment, tmp_path / "seen", "methods=[lora-2]", *rates[:1], "tune.share=0.5"))
    assert not (tmp_path / "seen").exists()


def test_the_best_rate_is_known_only_when_all_were_tried(tmp_path: Path) -> None:
    manifest = {"identity": {"tune.lr": [1e-4, 1e-3, 1e-2]}, "order": ["a", "base"]}
    manifest["methods"] = {"a": {"adapter": {}}, "base": {"adapter": None}}
    for lr, value in ((1e-4, 0.3), (1e-3, 0.2)):
        write_trial(tmp_path, Trial("a", lr, value))
    with pytest.raises(DatasetError, match="2 of the 3 learning rates"):
        best_rate(tmp_path, "a", manifest)
    write_trial(tmp_path, Trial("a", 1e-2, None, "diverged"))
    assert best_rate(tmp_path, "a", manifest) == 1e-3
    assert rates_table(read_trials(tmp_path, manifest))[1] == ["a", "0.3", "0.2", "failed", "0.001"]
    write_trial(tmp_path, Trial("a", 1e-2, 0.1))
    assert "an end of the range" in rates_table(read_trials(tmp_path, manifest))[1][-1]
    for lr in manifest["identity"]["tune.lr"]:
        write_trial(tmp_path, Trial("a", lr, None, "diverged"))
    with pytest.raises(DatasetError, match=r"no learning rate of tune\.lr= could be measured \(diverged\); mend"):
        best_rate(tmp_path, "a", manifest)
