"""dataset.json is protected: whatever single value of it is edited, verify says so."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import hostile
import pytest

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.dataset.record_file import CHECKSUM, sealed
from megasynth_attr.dataset.verify import verify_dataset

EDITS = 120
ALWAYS = ("license", "rgb", "world", "attribute", "scene_count", "dataset_index", "version", "fingerprint", "texture")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.tiny(tmp_path_factory.mktemp("tiny"))


def leaves(record: Any) -> list[tuple[Any, Any]]:
    return [(c, k) for c, k in hostile.places(record) if k != CHECKSUM and not isinstance(c[k], dict | list)]


def edited(record: dict[str, Any], index: int) -> tuple[str, dict[str, Any]]:
    """Return the name and a copy in which the value at ``index`` is another one of its type."""
    copied = copy.deepcopy(record)
    container, key = leaves(copied)[index]
    value = container[key]
    if isinstance(value, bool):
        container[key] = not value
    elif isinstance(value, int | float):
        container[key] = value + 1
    else:
        container[key] = f"x{(value or '')[1:]}"
    return f"{key}: {value!r} → {container[key]!r}", copied


def chosen(record: dict[str, Any]) -> list[int]:
    """Return which values are edited: some that matter most, and others by chance."""
    keys = [key for _, key in leaves(record)]
    always = [keys.index(key) for key in ALWAYS]
    return always + random.Random(3).sample([i for i in range(len(keys)) if i not in always], EDITS - len(always))


def missed(dataset: Path, seal: bool) -> list[str]:
    """Return the edits that verify does not notice; ``seal``: the checksum is made to fit again."""
    file = dataset / "dataset.json"
    before = file.read_bytes()
    record, unnoticed = json.loads(before), []
    try:
        for index in chosen(record):
            name, changed = edited(record, index)
            file.write_text(json.dumps(sealed(changed) if seal else changed))
            try:
                if verify_dataset(dataset, progress=False, write=False).passed:
                    unnoticed.append(name.partition(":")[0])
            except DatasetError:  # no dataset at all any more
                continue
    finally:
        file.write_bytes(before)
    return unnoticed


def test_the_dataset_itself_passes(dataset: Path) -> None:
    report = verify_dataset(dataset, progress=False, write=False)
    assert report.passed and [f for f in report.findings if f.check == "record"] == []


def test_every_edit_is_noticed(dataset: Path) -> None:
    assert missed(dataset, seal=False) == []


def test_with_a_checksum_that_fits_only_texts_for_people_can_be_edited(dataset: Path) -> None:
    """What anybody can compute is no signature: settings, conventions, counts and materials are compared all the same;
    licences, sources, and what is no part of a dataset's identity cannot be."""
    free = {"license", "source", "category", "dataset_count", "downstream", "downstream_count", "preset", "scenes"}
    assert set(missed(dataset, seal=True)) <= free | {"bank", "hdris", "pictures"}


def test_a_checksum_that_is_gone_is_said(dataset: Path) -> None:
    file = dataset / "dataset.json"
    before = file.read_bytes()
    file.write_text(json.dumps({key: value for key, value in json.loads(before).items() if key != CHECKSUM}))
    report = verify_dataset(dataset, progress=False, write=False)
    file.write_bytes(before)
    (finding,) = [f for f in report.findings if f.check == "record"]
    assert report.passed and "dataset.json has no checksum" in finding.message
