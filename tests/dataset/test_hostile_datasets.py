"""Datasets from strangers, spoilt in thousands of ways: a finding or a typed error, in bounded time, and no file
outside."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile
import pytest

from megasynth_attr.core import temporary
from megasynth_attr.core.errors import MegaSynthError
from megasynth_attr.core.names import inside
from megasynth_attr.dataset.export.__main__ import Options, export_dataset
from megasynth_attr.dataset.reader import open_dataset
from megasynth_attr.dataset.record_file import sealed
from megasynth_attr.dataset.verify import verify_dataset
from megasynth_attr.dataset.view.__main__ import Options as ViewOptions
from megasynth_attr.dataset.view.__main__ import write_view

FORMATS = ("paper", "colmap", "nerfstudio", "webdataset", "wai", "huggingface")
INPUTS = 2000
SLOWEST_S = 5


@pytest.fixture
def spoilt(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> hostile.Spoilt:
    return hostile.Spoilt(hostile.tiny(tmp_path_factory.mktemp("tiny")), tmp_path / "here")


@contextlib.contextmanager
def opened_files() -> Iterator[set[str]]:
    """Collect the paths of all files that are opened inside."""
    names: set[str] = set()
    seen: set[object] = set()  # no test puts a link where it has opened a file
    watching = [True]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not (watching[0] and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike)):
            return
        if arguments[0] not in seen:
            seen.add(arguments[0])
            names.add(os.path.realpath(os.fsdecode(arguments[0])))

    sys.addaudithook(hook)  # which stays for good
    try:
        yield names
    finally:
        watching[0] = False


def read(dataset: Path) -> None:
    """Read everything of a dataset."""
    for scene in open_dataset(dataset).scenes:
        assert scene.scene.hashes()
        for view in scene.views:
            assert view.image.size and view.depth_z.size and view.points_world().size


def export(dataset: Path, out: Path, kind: str) -> None:
    options = Options(format=kind, dataset=str(dataset), out=str(out), depth="npy")
    export_dataset(options, progress=False)


def view(dataset: Path) -> None:
    write_view(ViewOptions(str(dataset), points=100), progress=False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_spoilt_records_give_findings_or_typed_errors(
    spoilt: hostile.Spoilt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((os, "fsync"), (temporary, "sync_tree")):
        monkeypatch.setattr(module, name, lambda _: None)
    draw, slowest = random.Random(1), 0.0
    with opened_files() as names:
        for number in range(INPUTS):
            dataset = spoilt.restore()
            hostile.spoil_a_file(dataset, draw)
            began = time.process_time()
            with contextlib.suppress(MegaSynthError):
                verify_dataset(dataset, progress=False, write=False)
            with contextlib.suppress(MegaSynthError):
                if number % 8 == 0:
                    export(dataset, tmp_path / "out" / str(number), FORMATS[number // 8 % len(FORMATS)])
                elif number % 4 == 0:
                    read(dataset)
            slowest = max(slowest, time.process_time() - began)
    assert slowest < SLOWEST_S
    assert {path.name for path in tmp_path.iterdir()} == {"here", "out"}
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"texture_00"}
    here = str(Path(__file__).parents[2])
    known = (sys.prefix, sys.base_prefix, here, "/dev/null", "/proc/", "/usr/share/zoneinfo/")  # the last: pandas
    assert {name for name in names if not name.startswith((str(tmp_path), *known))} == set()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["rgb/0000.png", "depth/0001.exr", "scene.json", "cameras.json"])
def test_what_was_torn_or_changed_is_not_exported(spoilt: hostile.Spoilt, tmp_path: Path, kind: str, name: str) -> None:
    dataset = spoilt.restore()
    file = dataset / "scenes/000/000000" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(MegaSynthError, match=f"{name}: the file was changed after it was written|damaged"):
        export(dataset, tmp_path / "out", kind)
    assert [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".png", ".tar", ".exr", ".parquet")] == []


@pytest.mark.parametrize("name", ["rgb/0000.png", "rgb", "scene.json", "checksums.json", "cameras.json"])
def test_links_do_not_lead_out(spoilt: hostile.Spoilt, tmp_path: Path, name: str) -> None:
    dataset = spoilt.restore()
    there, secret = dataset / "scenes/000/000000" / name, tmp_path / "secret"
    there.rename(secret)
    there.symlink_to(secret)
    with opened_files() as names:
        assert not verify_dataset(dataset, progress=False, write=False).passed
        with pytest.raises(MegaSynthError, match="is a link that leads out of"):
            export(dataset, tmp_path / "out", "webdataset")
    assert [one for one in names if one.startswith(str(secret))] == []


@pytest.mark.parametrize(("name", "write"), [("tmp", verify_dataset), ("tmp", view), ("view", view)])
def test_nothing_is_written_through_a_link(
    spoilt: hostile.Spoilt, tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    dataset, elsewhere = spoilt.restore(), tmp_path / "elsewhere"
    shutil.rmtree(dataset / "tmp", ignore_errors=True)
    elsewhere.mkdir()
    (dataset / name).symlink_to(elsewhere)
    if name == "tmp" and write is view:
        (dataset / "view").mkdir()
        (dataset / "tmp").rename(dataset / "view/tmp")
    with opened_files() as names, pytest.raises(MegaSynthError, match="is a link"):
        write(dataset)
    assert not any(one.startswith(str(elsewhere)) for one in names)


@pytest.mark.parametrize("name", ["dataset.json", "scenes/000/000000/cameras.json", "scenes/000/000000/rgb/0000.png"])
def test_what_is_no_file_is_not_waited_for(spoilt: hostile.Spoilt, name: str) -> None:
    dataset = spoilt.restore()
    (dataset / name).unlink()
    os.mkfifo(dataset / name)
    with contextlib.suppress(MegaSynthError):
        assert not verify_dataset(dataset, progress=False, write=False).passed


@pytest.mark.parametrize("kind", FORMATS)
def test_no_attribute_leads_out(spoilt: hostile.Spoilt, tmp_path: Path, kind: str) -> None:
    dataset = spoilt.restore()
    record = json.loads((dataset / "dataset.json").read_text())
    for number, name in enumerate(hostile.NAMES):
        (dataset / "dataset.json").write_text(json.dumps(sealed(record | {"attribute": name})))
        with pytest.raises(MegaSynthError, match=r"dataset\.json is damaged: attribute"):
            export(dataset, tmp_path / "out" / str(number), kind)
    assert {path.name for path in tmp_path.iterdir()} == {"here"}


@pytest.mark.parametrize("name", [name for name in hostile.NAMES if name != "~"])
def test_no_factor_has_a_name_that_figures_and_terminals_choke_on(spoilt: hostile.Spoilt, name: str) -> None:
    dataset = spoilt.restore()
    record = json.loads((dataset / "dataset.json").read_text())
    record["config"]["factors"][name] = {"scope": "scene"}
    (dataset / "dataset.json").write_text(json.dumps(sealed(record)))
    with pytest.raises(MegaSynthError, match=r"dataset\.json is damaged: config\.factors: .* cannot be used as a name"):
        open_dataset(dataset)


def test_names_in_an_archive_stay_below_its_dataset(spoilt: hostile.Spoilt, tmp_path: Path) -> None:
    export(spoilt.restore(), tmp_path / "out", "webdataset")
    with tarfile.open(tmp_path / "out" / "texture_00-000000.tar") as tar:
        for member in tar.getmembers():
            inside(tmp_path, member.name, "tar")
            assert member.isreg() and member.name.startswith("texture_00/000000/")


def test_names_in_checksums_are_not_paths(spoilt: hostile.Spoilt) -> None:
    dataset = spoilt.restore()
    file = dataset / "scenes/000/000000/checksums.json"
    record = json.loads(file.read_text())
    extra = {name: {"bytes": 1, "sha256": "0" * 64} for name in hostile.NAMES if name.isprintable()}
    file.write_text(json.dumps(record | {"files": record["files"] | extra}))
    with opened_files() as names:
        report = verify_dataset(dataset, progress=False, write=False)
    found = [f.message for f in report.findings if "lists a file that does not belong here" in f.message]
    assert len(found) == len(extra) and not report.passed
    assert {name for name in names if name.endswith(("/x", "passwd", "/y"))} == set()
