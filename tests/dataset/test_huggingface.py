"""Hugging Face folders: read by ``datasets``, validated and read by ``mlcroissant``, sent to a stand-in of the Hub."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import yaml

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem
from megasynth_attr.dataset.export import card
from megasynth_attr.dataset.export.__main__ import Options, export_dataset
from megasynth_attr.dataset.export.derived import Derived
from megasynth_attr.dataset.reader import open_dataset
from megasynth_attr.dataset.record_file import sealed

datasets = pytest.importorskip("datasets")
FLOW = Derived(flow=True, disparity=0.1)


@pytest.fixture(scope="module")
def exported(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hub") / "out"
    export(pristine, out, flow=True, disparity=0.1, val_scenes=1, scenes_per_shard=1, license="cc0-1.0")
    return out


def export(dataset: Path, out: Path, **options: Any) -> None:
    export_dataset(Options("huggingface", str(dataset), str(out), **options), progress=False)


def header(out: Path) -> dict[str, Any]:
    _, front, _ = (out / "README.md").read_text().split("---\n", 2)
    return dict(yaml.safe_load(front))


def load(out: Path, name: str, cache: Path) -> Any:
    return datasets.load_dataset(str(out), name, cache_dir=str(cache))


class TestLoadDataset:
    def test_everything_comes_back(self, pristine: Path, exported: Path, tmp_path: Path) -> None:
        loaded = load(exported, "texture_00", tmp_path)
        assert {split: len(rows) for split, rows in loaded.items()} == {"train": 12, "val": 6}
        assert str(loaded["train"].features["depth"]).startswith("Array2D(shape=(56, 70)")
        scenes = open_dataset(pristine).scenes
        rows = loaded["train"].with_format("numpy")
        for scene in scenes[:2]:
            for view, derived in zip(scene.views, FLOW.layers(scene.views), strict=True):
                row = rows[scene.index * 6 + view.index]
                assert (row["scene"], row["frame"], row["frames"]) == (scene.index, view.index, 6)
                assert row["dataset"] == "texture_00"
                np.testing.assert_array_equal(row["image"], view.image)
                np.testing.assert_array_equal(row["depth"], view.depth_z)
                np.testing.assert_array_equal(row["instance"], view.instance)
                np.testing.assert_array_equal(row["normal"], view.normal)
                np.testing.assert_array_equal(row["position"], view.position)
                np.testing.assert_array_equal(row["disparity"], derived["disparity"])
                for way in ("forward", "backward"):
                    expected = derived.get(f"flow_{way}", np.full((56, 70, 2), np.nan))
                    np.testing.assert_array_equal(row[f"flow_{way}"], expected)
                    expected = derived.get(f"occlusion_{way}", np.full((56, 70), 255))
                    np.testing.assert_array_equal(row[f"occlusion_{way}"], expected)

    def test_cameras_and_hashes_are_exact(self, pristine: Path, exported: Path, tmp_path: Path) -> None:
        rows = load(exported, "texture_00", tmp_path)["val"]
        scene = open_dataset(pristine).scene(2)
        np.testing.assert_array_equal(rows["camera_from_world"], scene.camera_from_world)
        np.testing.assert_array_equal(rows["intrinsics"][5], scene.intrinsics)
        assert json.loads(rows["hashes"][0]) == json.loads(scene.file("scene.json").read_bytes())["hashes"]

    def test_several_datasets_in_one_folder(self, pristine: Path, tmp_path: Path) -> None:
        other = synthetic.write_dataset(synthetic.config(*synthetic.ALL_LAYERS, "seed=1"), tmp_path)
        other = other.rename(tmp_path / "other")
        record = json.loads((other / "dataset.json").read_text())
        (other / "dataset.json").write_text(json.dumps(sealed(record | {"dataset_index": 1})))
        export(pristine, tmp_path / "out", scenes="0-1")
        export(other, tmp_path / "out", scenes="0")
        assert [config["config_name"] for config in header(tmp_path / "out")["configs"]] == ["texture_00", "texture_01"]
        assert len(load(tmp_path / "out", "texture_01", tmp_path / "cache")["train"]) == 6
        with pytest.raises(ConfigError, match=r'options\.scenes is "0-1" there and "0" now'):
            export(pristine, tmp_path / "out", scenes="0")

    def test_without_pyarrow_nothing_is_begun(
        self, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(
            EnvironmentProblem, match=r"needs the package pyarrow: pip install 'megasynth-attr\[export\]'"
        ):
            export(pristine, tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestCard:
    def test_front_matter(self, exported: Path) -> None:
        front = header(exported)
        assert front["license"] == "cc0-1.0" and front["size_categories"] == ["n<1K"]
        (config,) = front["configs"]
        assert [(f["split"], f["path"]) for f in config["data_files"]] == [
            ("train", "data/texture_00/train-*.parquet"),
            ("val", "data/texture_00/val-*.parquet"),
        ]
        sizes = {split["name"]: split["num_examples"] for split in front["dataset_info"][0]["splits"]}
        assert sizes == {"train": 12, "val": 6}

    def test_it_says_what_a_reader_needs(self, exported: Path) -> None:
        text = (exported / "README.md").read_text()
        for words in (
            "| camera_from_world | 4×4, X_camera = M X_world",
            "| depth | planar z along the optical axis",
            "| flow | pixels (x right, y down)",
            "Drawn anew for every scene: texture.",
            "Materials in the pictures: CC0.",
            "@software{megasynth_attr",
        ):
            assert words in text

    def test_an_unstated_licence_is_said(self, pristine: Path, tmp_path: Path) -> None:
        export(pristine, tmp_path / "out", scenes="0")
        assert header(tmp_path / "out")["license_name"] == "not-stated"
        assert "None is stated: ask whoever published the data." in (tmp_path / "out/README.md").read_text()

    def test_what_a_dataset_says_is_no_markup(self, pristine: Path, tmp_path: Path) -> None:
        evil = "x\n# title\n![p](http://a/b.png) <script> | `\x1b[2J"
        copy = shutil.copytree(pristine, tmp_path / pristine.name)
        record = json.loads((copy / "dataset.json").read_text())
        record["version"] = record["config"]["version"] = record["fingerprint"] = evil
        record["conventions"] = {evil: evil}
        record["materials"] = [material | {"license": evil} for material in record["materials"]]
        (copy / "dataset.json").write_text(json.dumps(sealed(record)))
        export(copy, tmp_path / "out", scenes="0")
        text = (tmp_path / "out/README.md").read_text()
        shown = r"x # title !\[p](http://a/b.png) &lt;script> \| \`\\x1b\[2J"
        assert f"\n| {shown} | {shown} |\n" in text and text.count(shown) == 4
        assert "\n# title" not in text and "\x1b" not in text and "<script>" not in text and "![" not in text

    @pytest.mark.parametrize(
        ("rows", "category"), [(999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**7, "10M<n<100M")]
    )
    def test_size_categories(self, rows: int, category: str) -> None:
        assert card.size_category(rows) == category


class TestDamage:
    def test_a_damaged_file_is_named(self, pristine: Path, tmp_path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        export(pristine, tmp_path / "out", scenes="0")
        file = next((tmp_path / "out").rglob("*.parquet"))
        foreign = tmp_path / "foreign.parquet"
        parquet.write_table(pyarrow.table({"a": [1]}), foreign)
        for content in (b"", file.read_bytes()[:1000], foreign.read_bytes()):
            file.write_bytes(content)
            with pytest.raises(DatasetError, match=r"train-00000\.parquet is damaged, .* delete it, then run the same"):
                export(pristine, tmp_path / "out", scenes="0")
        file.unlink()
        os.mkfifo(file)  # which is not waited for
        with pytest.raises(DatasetError, match="it is no regular file"):
            export(pristine, tmp_path / "out", scenes="0")


class TestCroissant:
    def test_it_validates_and_reads(self, pristine: Path, exported: Path) -> None:
        croissant = pytest.importorskip("mlcroissant")
        described = croissant.Dataset(jsonld=str(exported / "croissant.json"))
        assert not described.metadata.issues.errors
        assert [found.name for found in described.metadata.record_sets] == ["texture_00-train", "texture_00-val"]
        row = next(iter(described.records("texture_00-val")))
        view = open_dataset(pristine).scene(2).views[0]
        np.testing.assert_array_equal(np.array(row["texture_00-val/image"]), view.image)
        np.testing.assert_array_equal(row["texture_00-val/depth"], view.depth_z)
        assert row["texture_00-val/scene"] == 2


class Hub(ThreadingHTTPServer):
    """As much of the Hub as an upload asks for; keeps what is committed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.refuse = False
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.server.refuse or self.headers.get("authorization") != "Bearer hf_token":
            self.answer({"error": "Invalid credentials"}, 401)
        elif self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self.answer({"url": f"{self.server.url}/datasets/me/scenes", "name": "me/scenes", "id": "me/scenes"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path.startswith("/api/datasets/me/scenes/preupload/main"):
            asked = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
            self.answer({"files": modes})
        elif self.path.startswith("/api/datasets/me/scenes/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.url}/datasets/me/scenes/commit/{'1' * 40}"
            self.answer({"commitUrl": url, "commitOid": "1" * 40, "success": True})
        else:
            self.answer({"error": self.path}, 404)

    def answer(self, record: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(record).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class TestPush:
    def push(self, dataset: Path, out: Path, home: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "megasynth_attr.dataset.export", "format=huggingface", f"dataset={dataset}"]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        return subprocess.run(
            [*command, f"out={out}", "scenes=0", "push=me/scenes", *words],
            env=clean | {"HF_HOME": str(home)} | env,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_what_is_there_arrives(self, pristine: Path, tmp_path: Path, hub: Hub) -> None:
        where = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_token"}
        done = self.push(pristine, tmp_path / "out", tmp_path / "home", **where)
        assert done.returncode == 0, done.stderr
        (made,) = hub.made
        assert made["type"] == "dataset"
        assert made.get("visibility", made.get("private")) in ("private", True)  # by version of the package
        names = ["README.md", "croissant.json", "data/texture_00/train-00000.parquet"]
        assert sorted(hub.files) == names
        assert all(hub.files[name] == (tmp_path / "out" / name).read_bytes() for name in names)

    def test_a_refusal_is_one_sentence_and_the_export_stays(self, pristine: Path, tmp_path: Path, hub: Hub) -> None:
        hub.refuse = True
        where = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_token"}
        done = self.push(pristine, tmp_path / "out", tmp_path / "home", **where)
        assert done.returncode == 4, done.stderr
        assert "push=me/scenes: the upload did not finish (" in done.stderr and "401" in done.stderr
        assert "is complete" in done.stderr and "Traceback" not in done.stderr
        assert (tmp_path / "out/README.md").exists()

    def test_no_token_is_said_before_anything_is_written(self, pristine: Path, tmp_path: Path) -> None:
        done = self.push(pristine, tmp_path / "out", tmp_path / "home")
        assert done.returncode == 2
        assert "push=me/scenes: there is no Hugging Face token on this machine; make one" in done.stderr
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"push": "scenes"}, "push=scenes: write <user or organisation>/<name>"),
            ({"push": "a b/c"}, "push=a b/c: "),
            ({"push": "me/scenes", "shard": "1/2"}, "leave out shard="),
        ],
    )
    def test_bad_names(self, pristine: Path, tmp_path: Path, options: dict[str, str], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            export(pristine, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
