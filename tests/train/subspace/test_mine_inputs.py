"""What cannot be mined: every case is refused with words that help, and nothing is written or overwritten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_mine import mined, settings
from written_cluster import layers, random_adapter, write_adapter, write_cluster

from megasynth_attr.core.errors import ConfigError, DatasetError, ExitCode, MegaSynthError, run_main
from megasynth_train import mine
from megasynth_train.subspace import result_folder

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters of two attributes; not to be changed."""
    return write_cluster(tmp_path_factory.mktemp("clusters") / "cluster", count=2)


def cut(cluster: Path) -> None:
    file = cluster / "texture_01" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def other_base(cluster: Path) -> None:
    file = cluster / "texture_01" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "another model"}))


def missing_layer(cluster: Path) -> None:
    file = cluster / "geometry_00" / WEIGHTS
    tensors = load_file(file)
    save_file({key: value for key, value in tensors.items() if "frame_blocks.0.mlp.fc1" not in key}, file)


def other_shapes(cluster: Path) -> None:
    shutil.rmtree(cluster / "texture_01")
    shapes = {module: (m + 2, n) for module, (m, n) in layers().items()}
    write_adapter(cluster / "texture_01", random_adapter(np.random.default_rng(0), shapes))


def impossible_rank(cluster: Path) -> None:
    file = cluster / "geometry_01" / WEIGHTS
    tensors = load_file(file)
    key = next(key for key in tensors if key.endswith("lora_A.weight"))
    save_file(tensors | {key: np.ascontiguousarray(tensors[key][:-1])}, file)


def no_attribute(cluster: Path) -> None:
    (cluster / "texture_01").rename(cluster / "something")


def named_all(cluster: Path) -> None:
    (cluster / "texture_01").rename(cluster / "all_00")


def nothing(cluster: Path) -> None:
    shutil.rmtree(cluster)
    cluster.mkdir()


def empty_manifest(cluster: Path) -> None:
    record = {"format": "megasynth-attr cluster 1", "identity": {}, "adapters": {}}
    (cluster / "cluster.json").write_text(json.dumps(record))


def unfinished(cluster: Path) -> None:
    entries = {path.name: {"attribute": "texture", "seed": 1} for path in cluster.iterdir()}
    for name in entries:
        (cluster / name).rename(cluster / "adapter")
        (cluster / name).mkdir()
        (cluster / "adapter").rename(cluster / name / "adapter")
    shutil.rmtree(cluster / "texture_01" / "adapter")
    record = {"format": "megasynth-attr cluster 1", "identity": {}, "adapters": entries}
    (cluster / "cluster.json").write_text(json.dumps(record))


def twice(cluster: Path) -> None:
    shutil.copytree(cluster / "texture_00", cluster / "geometry_02")


def no_moves(cluster: Path) -> None:
    for name in ("texture_00", "texture_01"):
        file = cluster / name / WEIGHTS
        tensors = load_file(file)
        save_file({key: array * ("lora_A" in key) for key, array in tensors.items()}, file)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (cut, DatasetError, "texture_01/adapter_model.safetensors cannot be read"),
        (other_base, DatasetError, "different base models"),
        (missing_layer, DatasetError, "does not adapt aggregator.frame_blocks.0.mlp.fc1"),
        (other_shapes, DatasetError, "belong to different models"),
        (impossible_rank, DatasetError, "lacks two factors of a common rank"),
        (no_attribute, ConfigError, "does not name its attribute"),
        (named_all, ConfigError, "cannot name a basis file"),
        (nothing, ConfigError, "holds no adapters"),
        (empty_manifest, DatasetError, "lists no adapters"),
        (twice, DatasetError, "geometry_02 and texture_00 are the same file; leave one out"),
        (no_moves, DatasetError, "all updates of texture are zero; there is nothing to mine; leave it out with attr"),
        (unfinished, ConfigError, "1 of 4 adapters .* not finished: texture_01"),
    ],
)
def test_clusters_that_cannot_be_mined(
    good: Path, tmp_path: Path, change: Callable[[Path], None], kind: type[MegaSynthError], words: str
) -> None:
    cluster, out = Path(shutil.copytree(good, tmp_path / "cluster")), tmp_path / "out"
    change(cluster)
    with pytest.raises(kind, match=words):
        mined(cluster, out)
    assert not out.exists()


def test_numbers_that_are_not_finite_end_the_run(good: Path, tmp_path: Path) -> None:
    cluster, out = Path(shutil.copytree(good, tmp_path / "cluster")), tmp_path / "out"
    file = cluster / "texture_01" / WEIGHTS
    tensors = load_file(file)
    key = "base_model.model.aggregator.global_blocks.0.mlp.fc2.lora_B.weight"
    tensors[key][0, 0] = np.nan
    save_file(tensors, file)
    with pytest.raises(DatasetError, match=r"fc2\.lora_B\.weight holds NaN or infinite numbers"):
        mined(cluster, out)
    assert not list(out.glob("*.safetensors")) and not (out / "done.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cluster=",), "cluster= is missing"),
        (("out=",), "out= is missing"),
        (("attributes=[textur]",), "did you mean texture"),
        (("modules=.*nothing",), "modules=.*nothing matches none"),
        (("modules=(",), "not a regular expression"),
        (("cluster=/nowhere/at/all",), "holds no adapters"),
    ],
)
def test_words_that_cannot_be_meant(good: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        mine.run(settings(good, tmp_path / "out", *words))
    assert message in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(good: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="it is no set of subspaces"):
        mined(good, out)
    (out / "settings.json").write_text(json.dumps({"format": "megasynth-attr training settings 1"}))
    with pytest.raises(ConfigError, match="it is no set of subspaces"):
        mined(good, out)
    assert {path.name for path in out.iterdir()} == {"thesis.tex", "settings.json"}
    with pytest.raises(ConfigError, match=r"thesis\.tex is a file; name a folder"):
        mined(good, out / "thesis.tex")


def test_a_folder_that_holds_only_tmp_may_be_somebody_elses(good: Path, tmp_path: Path) -> None:
    draft = tmp_path / "out" / "tmp" / "draft.txt"
    draft.parent.mkdir(parents=True)
    draft.write_text("years of work")
    with pytest.raises(ConfigError, match="it is no set of subspaces"):
        mined(good, tmp_path / "out")
    assert draft.exists() and [path.name for path in (tmp_path / "out").iterdir()] == ["tmp"]
    draft.unlink()
    (draft.parent / "file.elsewhere.123.0").mkdir()  # of a run that was killed before it wrote its settings
    result_folder.check_is_ours(tmp_path / "out")


def test_out_lies_neither_in_the_cluster_nor_among_other_results(good: Path, tmp_path: Path) -> None:
    for out in (good / "out", good):
        with pytest.raises(ConfigError, match="lies inside cluster="):
            mined(good, out)
    assert not (good / "out").exists()
    (tmp_path / "settings.json").write_text(json.dumps({"format": result_folder.SUBSPACES.format}))
    with pytest.raises(ConfigError, match="which holds subspaces already"):
        mined(good, tmp_path / "report" / "out")
    assert not (tmp_path / "report").exists()


def test_help_and_wrong_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mine.main(["--help"])
    text = capsys.readouterr().out
    for word in ("mining.dimension", "mining.extractor", "run.workers", "irls, joint, svd, hosvd, grassmann", "short:"):
        assert word in text
    assert run_main(mine.main, ["cluster=x", "out=y", "dimensions=3"]) == ExitCode.USAGE
    assert "unknown key dimensions" in capsys.readouterr().err
    assert run_main(mine.main, ["cluster=x", "out=y", "dimension=0"]) == ExitCode.USAGE
    assert run_main(mine.main, ["cluster=x", "out=y", "extractor=pca"]) == ExitCode.USAGE
