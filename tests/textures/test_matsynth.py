"""MatSynth shards in the schema of the hub → a disk bank; damaged rows, filters, resuming, errors."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem, ExitCode, run_main
from megasynth_attr.textures.bank import open_bank
from megasynth_attr.textures.matsynth import HUB_ID, MatsynthOptions, bank_maps, build_bank, license_family, main
from megasynth_attr.textures.records import CATEGORIES
from megasynth_attr.textures.surface import MAPS

datasets = pytest.importorskip("datasets")
IMAGES = (
    "basecolor", "diffuse", "displacement", "height", "metallic", "normal", "opacity", "roughness", "specular",
    "blend_mask",
)  # fmt: skip
FEATURES = datasets.Features(
    {
        "name": datasets.Value("string"),
        "category": datasets.ClassLabel(names=list(CATEGORIES)),
        "metadata": {
            "authors": datasets.Sequence(datasets.Value("string")),
            "category": datasets.Value("string"),
            "description": datasets.Value("string"),
            "height_factor": datasets.Value("float32"),
            "height_mean": datasets.Value("float32"),
            "license": datasets.Value("string"),
            "link": datasets.Value("string"),
            "maps": datasets.Sequence(datasets.Value("string")),
            "method": datasets.Value("string"),
            "name": datasets.Value("string"),
            "physical_size": datasets.Value("float32"),
            "source": datasets.Value("string"),
            "stationary": datasets.Value("bool"),
            "tags": datasets.Sequence(datasets.Value("string")),
            "version_date": datasets.Value("string"),
        },
        **{name: datasets.Image() for name in IMAGES},
    }
)


def _png(pixels: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def _row(name: str, category: str, license_text: str = "CC0", size: int = 48) -> dict[str, Any]:
    rng = np.random.default_rng(sum(name.encode()))
    images: dict[str, Any] = dict.fromkeys(IMAGES)
    images["basecolor"] = _png(rng.integers(0, 256, (size, size, 3), np.uint8))
    images["normal"] = _png(np.full((size, size, 3), (160, 96, 240), np.uint8))
    images["roughness"] = _png(np.full((size, size), 128, np.uint8))
    images["metallic"] = _png(np.full((size, size, 3), 255, np.uint8))
    images["height"] = _png(np.full((size, size), 32896, np.uint16))  # 16 bit, as MatSynth's are
    metadata = {
        "authors": ["Ann Author"], "category": category, "description": "", "height_factor": 1.0, "height_mean": 0.5,
        "license": license_text, "link": f"https://example.org/{name}", "maps": list(MAPS), "method": "procedural",
        "name": name, "physical_size": 100.0, "source": "AmbientCG", "stationary": True, "tags": ["a", "b"],
        "version_date": "2023-01-01",
    }  # fmt: skip
    return {"name": name, "category": CATEGORIES.index(category), "metadata": metadata, **images}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {key: [row[key] for row in rows] for key in FEATURES}
    datasets.Dataset.from_dict(columns, features=FEATURES).to_parquet(str(path))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matsynth")
    missing, corrupt, cut = _row("no_normal", "wood"), _row("corrupt_height", "metal"), _row("cut_basecolor", "wood")
    missing["normal"] = None
    corrupt["height"] = {"bytes": b"\x89PNG\r\n\x1a\nnonsense", "path": None}
    cut["basecolor"]["bytes"] = cut["basecolor"]["bytes"][:1500]
    _write(folder / "data" / "train-00000-of-00002.parquet", [_row("oak one", "wood"), missing, corrupt])
    _write(
        folder / "data" / "train-00001-of-00002.parquet",
        [cut, _row("iron", "metal", "CC-BY 4.0"), _row("tile", "ceramic"), _row("ash", "wood", "CC BY")],
    )
    return folder


def _options(shards: Path, out: Path, **changes: Any) -> MatsynthOptions:
    return MatsynthOptions(**{"source": str(shards), "out": str(out), "size_px": 24, **changes})


def test_shards_become_a_bank(shards: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="skipped") as warned:
        done = build_bank(_options(shards, tmp_path / "bank"))
    assert (done.written, done.kept, done.in_bank) == (4, 0, 4)
    assert done.skipped == ("no_normal", "corrupt_height", "cut_basecolor")
    text = " ".join(str(w.message) for w in warned)
    assert (
        "no_normal: the normal map is missing" in text
        and "corrupt_height: the height map" in text
        and "cut_basecolor" in text
    )
    bank = open_bank(str(tmp_path / "bank"), cache_dir=tmp_path, size_px=24)
    by_category = {record.category: record for record in bank.records if record.category != "wood"}
    assert set(by_category) == {"metal", "ceramic"}
    iron = by_category["metal"]
    assert (iron.name, iron.license) == ("iron", "CC-BY 4.0")
    assert iron.source == "MatSynth; AmbientCG; Ann Author; https://example.org/iron"
    assert by_category["ceramic"].license == "CC0-1.0"
    assert abs(iron.mean_roughness - 128 / 255) < 0.002 and iron.mean_metallic == 1.0
    files = bank.materialise(["iron"])["iron"]
    assert np.asarray(Image.open(files["basecolor"])).shape == (24, 24, 3)
    assert np.all(np.asarray(Image.open(files["height"])) == 128)
    normal = np.asarray(Image.open(files["normal"])) / 127.5 - 1
    assert np.abs(np.linalg.norm(normal, axis=-1) - 1).max() < 0.01  # (160, 96, 240) was not a unit vector
    assert any(r.name.startswith("oak_one-") for r in bank.records)  # a blank is not file-safe


@pytest.mark.parametrize(
    ("height", "kind", "expected"),
    [
        (np.full((8, 8), 200, np.uint8), "PNG", 200),
        (np.full((8, 8), 200, np.uint16), "PNG", 1),  # 200 of 65535, dark
        (np.full((8, 8), 32896, np.uint16), "TIFF", 128),
        (np.full((8, 8), 0.5, np.float32), "TIFF", 128),  # as it is, not divided by 255
        (np.full((8, 8), 200.0, np.float32), "TIFF", None),
    ],
)
def test_heights_are_scaled_by_the_type_of_the_file(height: np.ndarray, kind: str, expected: int | None) -> None:
    row, buffer = _row("oak", "wood", size=8), io.BytesIO()
    Image.fromarray(height).save(buffer, kind)
    row["height"] = {"bytes": buffer.getvalue(), "path": None}
    if expected is None:
        with pytest.raises(DatasetError, match=r"the height map holds .* from 200 to 200; they must be in 0 … 1"):
            bank_maps(row, 8)
    else:
        assert np.all(bank_maps(row, 8)["height"] == expected)


@pytest.mark.filterwarnings("ignore:skipped")
def test_filters_and_limit(shards: Path, tmp_path: Path) -> None:
    assert build_bank(_options(shards, tmp_path / "w", categories=("wood",))).written == 2
    assert build_bank(_options(shards, tmp_path / "c", licenses=("CC0",))).written == 2
    assert build_bank(_options(shards, tmp_path / "b", licenses=("cc-by",))).written == 2
    assert build_bank(_options(shards, tmp_path / "l", limit=1)).in_bank == 1
    pattern = str(shards / "data" / "*-00001-*.parquet")
    assert build_bank(_options(shards, tmp_path / "g", source=pattern)).written == 3


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_killed_run_goes_on(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    build_bank(_options(shards, out, limit=2))
    kept = next(out.glob("*/material.json"))
    stamp = kept.stat().st_mtime_ns
    half = out / "tile"  # as a kill leaves it: maps but no material.json
    half.mkdir(exist_ok=True)
    (half / "basecolor.png").write_bytes(b"old")
    (half / "material.json").unlink(missing_ok=True)
    done = build_bank(_options(shards, out))
    assert done.kept + done.written == 4 and done.kept >= 1 and done.in_bank == 4
    assert kept.stat().st_mtime_ns == stamp
    bank = open_bank(str(out), cache_dir=tmp_path, size_px=24)
    bank.materialise(record.name for record in bank.records)
    fresh = tmp_path / "fresh"
    build_bank(_options(shards, fresh))
    assert open_bank(str(fresh), cache_dir=tmp_path, size_px=24).identity == bank.identity
    with pytest.raises(ConfigError, match="size_px=24"):
        build_bank(_options(shards, out, size_px=32))


@pytest.mark.filterwarnings("ignore:skipped")
def test_nothing_left_is_an_error(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="widen"):
        build_bank(_options(shards, tmp_path / "x", categories=("leather",)))
    assert not (tmp_path / "x" / "index.json").exists()


def test_wrong_arguments_name_the_nearest(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean wood"):
        build_bank(_options(shards, tmp_path, categories=("wod",)))
    with pytest.raises(ConfigError, match="licence 'CCO'"):
        build_bank(_options(shards, tmp_path, licenses=("CCO",)))
    with pytest.raises(ConfigError, match="categories"):
        main(["categorys=[wood]"])
    with pytest.raises(ConfigError, match="out= is missing"):
        main([f"source={shards}"])


def test_wrong_sources(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no parquet file"):
        build_bank(_options(tmp_path, tmp_path / "x"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DatasetError, match="cannot read the shards"):
        build_bank(_options(tmp_path, tmp_path / "x"))
    datasets.Dataset.from_dict({"name": ["a"]}).to_parquet(str(tmp_path / "bad.parquet"))
    with pytest.raises(DatasetError, match="lacks the columns"):
        build_bank(_options(tmp_path, tmp_path / "x"))


def test_the_network_is_used_only_for_the_hub(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = datasets.load_dataset, []

    def spy(path: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(path)
        if path == HUB_ID:
            raise ConnectionError("no route")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", spy)
    build_bank(_options(shards, tmp_path / "b", categories=("ceramic",)))
    assert asked == ["parquet"]
    with pytest.raises(EnvironmentProblem, match="network"):
        build_bank(_options(shards, tmp_path / "h", source=HUB_ID))


def test_a_missing_package_says_what_to_install(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EnvironmentProblem, match=r"megasynth-attr\[matsynth\]"):
        build_bank(_options(shards, tmp_path / "b"))


def test_command_line_and_exit_codes(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--source={shards}", f"out={tmp_path / 'b'}", "categories=[ceramic]", "size_px=16"]
    assert run_main(main, arguments) == ExitCode.DONE
    assert "1 materials written" in capsys.readouterr().out
    assert run_main(main, [*arguments, "limt=3"]) == ExitCode.USAGE
    assert "limit" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "licenses" in capsys.readouterr().out
    entry = json.loads((tmp_path / "b" / "tile" / "material.json").read_text())
    assert entry["authors"] == ["Ann Author"] and entry["tags"] == ["a", "b"] and entry["physical_size"] == 100.0


@pytest.mark.parametrize(
    ("text", "family"),
    [("CC0", "CC0"), ("CC0-1.0", "CC0"), ("cc0 1.0", "CC0"), ("CC BY 4.0", "CC-BY"), ("CC-BY-NC-SA", "CC-BY-NC-SA")],
)
def test_licence_families(text: str, family: str) -> None:
    assert license_family(text) == family
