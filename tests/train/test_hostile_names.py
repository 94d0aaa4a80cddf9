"""Names in the records of the training half that lead out of their folders are refused before anything is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.run_folder import read_record
from megasynth_train.adapters import storage
from megasynth_train.compare.manifest import COMPARISON
from megasynth_train.data.layouts.paper import read_scene
from megasynth_train.data.layouts.view import Reading
from megasynth_train.subspace import result_folder
from megasynth_train.training import checkpoints, run_folder
from megasynth_train.training.cluster_manifest import CLUSTER

NAMES = ("../../x", "/etc/passwd", "..", "", "a\0b", "x" * 300, "CON", "a\nb", "a\\b")


def write(file: Path, record: dict[str, Any]) -> None:
    file.write_text(json.dumps(record))


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_in_records(tmp_path: Path, name: str) -> None:
    def refused(read: Any, *given: Any) -> None:
        with pytest.raises(DatasetError, match="cannot be used as a name"):
            read(*given)

    for kind in (CLUSTER, COMPARISON):
        empty: dict[str, Any] = {**dict.fromkeys(kind.keys, 0), **{key: {} for key in kind.tables}}
        write(tmp_path / kind.record, {**empty, kind.paths[0]: {name: {}}, "format": kind.format})
        refused(read_record, tmp_path, kind)
    for key in ("result", "best"):
        done: dict[str, Any] = {**dict.fromkeys(run_folder.FINISHED.keys, "adapter"), "identity": {}, key: name}
        write(tmp_path / run_folder.DONE, {**done, "format": run_folder.FINISHED.format})
        refused(run_folder.read_done, tmp_path)
    finished = result_folder.FINISHED
    write(tmp_path / finished.record, {"format": finished.format, "identity": {}, "files": {name: "0"}})
    refused(result_folder._check_results, tmp_path)
    base = {"size": "", "config": {}, "weights_sha256": ""}
    adapter = {"mode": "lora", "settings": {}, "seed": 0, "total_steps": 0, "base": base, "format": storage.FORMAT}
    for listed in ({"files": {name: "0"}, "adapters": ["default"]}, {"files": {}, "adapters": ["default", name]}):
        write(tmp_path / storage.RECORD, adapter | listed)
        refused(storage.read_record, tmp_path)
    state = {"format": checkpoints.CHECKPOINT.format, "files": {name: "0"}}
    write(tmp_path / checkpoints.STATE, state | {"sha256": checkpoints._hash(state)})
    refused(checkpoints._checked_state, tmp_path)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("", "..")] + ["../x_rgba.png"], ids=repr)
def test_pictures_of_the_papers_layout(tmp_path: Path, name: str) -> None:
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    frame = {"file_path": name, "w2c": pose, "fx": 9, "fy": 9, "cx": 4, "cy": 4, "w": 8, "h": 8}
    write(tmp_path / "opencv_cameras.json", {"frames": [frame]})
    with pytest.raises(DatasetError, match="cannot be used as a name"):
        read_scene(tmp_path, Reading())
