"""What a dataset or a preset names is never run: a plugin is imported only if the user's words name it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from megasynth_attr.core.errors import ConfigError, MegaSynthError
from megasynth_attr.dataset.export.__main__ import main as export
from megasynth_attr.dataset.reader import open_dataset
from megasynth_attr.dataset.record_file import sealed
from megasynth_attr.dataset.verify import main as verify
from megasynth_attr.dataset.view.__main__ import main as view
from megasynth_attr.pipeline.__main__ import main as pipeline
from megasynth_attr.pipeline.open_scene import main as open_scene
from megasynth_attr.report.page import write_report


@pytest.fixture
def hostile(dataset: Path, tmp_path: Path) -> Path:
    """A dataset that names a plugin which leaves a trace when it is imported."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    record = json.loads((dataset / "dataset.json").read_text())
    record["config"]["content"]["plugins"] = [str(plugin)]
    record["config"]["plugins"] = {"plugin": "0" * 64}
    record["config"]["factors"]["smoke"] = {"scope": "scene", "variants": 1}
    (dataset / "dataset.json").write_text(json.dumps(sealed(record)))
    return dataset


def read_all(dataset: Path) -> None:
    for scene in open_dataset(dataset).scenes:
        assert scene.scene.factors and scene.views[0].image.size


@pytest.mark.parametrize(
    "use",
    [
        lambda folder: verify([f"dataset={folder}"]),
        lambda folder: export(["format=paper", f"dataset={folder}", f"out={folder.parent / 'export'}"]),
        lambda folder: open_scene([f"scene={folder / 'scenes/000/000000'}", f"save={folder / 'x.blend'}"]),
        lambda folder: view([f"dataset={folder}"]),
        lambda folder: write_report(folder, progress=False),
        read_all,
    ],
    ids=["verify", "export", "open_scene", "view", "report", "reader"],
)
def test_no_program_imports_what_a_dataset_names(hostile: Path, tmp_path: Path, use: Callable[[Path], object]) -> None:
    with contextlib.suppress(MegaSynthError):  # e.g. there is no Blender here, or the dataset is not what it says
        use(hostile)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("word", ["preset={}.yaml", "members=[{}.yaml]", "downstream={}.yaml", "config={}.yml"])
@pytest.mark.parametrize("more", [[], ["--help"]])
def test_no_file_that_words_name_may_name_a_plugin(tmp_path: Path, word: str, more: list[str]) -> None:
    (tmp_path / "plugin.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    (tmp_path / "a.yaml").write_text("extends: texture\nplugins: [plugin.py]\n")
    (tmp_path / "a.yml").write_text("plugins: [plugin.py]\n")
    with pytest.raises(ConfigError, match=r"names the plugin plugin\.py: .* add plugins=\[path/to/file\.py\]"):
        pipeline([word.format(tmp_path / "a"), f"out={tmp_path / 'out'}", *more])
    assert not (tmp_path / "imported").exists() and not (tmp_path / "out").exists()


def test_the_plugin_is_named_and_how_to_give_it(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(MegaSynthError):
        verify([f"dataset={hostile}"])
    said = capsys.readouterr().out
    assert "it was made with plugin, SHA-256 000000000000: if you trust that file, give it with plugins=[" in said
