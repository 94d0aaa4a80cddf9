"""Scenes as archives: the same as folders to every reader, equal bytes for equal scenes, nothing else accepted."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import synthetic
from synthetic import tree

from megasynth_attr.core.errors import ConfigError, DatasetError, MegaSynthError
from megasynth_attr.core.files import json_bytes
from megasynth_attr.core.temporary import publish
from megasynth_attr.dataset import pack, paths
from megasynth_attr.dataset.archive import BLOCK, ArchiveWriter, in_order, members
from megasynth_attr.dataset.conventions import CHECKSUMS_FORMAT
from megasynth_attr.dataset.export.__main__ import Options, export_dataset
from megasynth_attr.dataset.pack import convert
from megasynth_attr.dataset.reader import SceneData, open_dataset
from megasynth_attr.dataset.scene_files import file_sizes
from megasynth_attr.dataset.verify import verify_dataset
from megasynth_attr.pipeline import open_scene

ALL = (*synthetic.ALL_LAYERS, "write.pack=tar")
MUTATIONS, HOSTILE = 100, 300
SCENE = "scenes/000/000000.tar"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of ``pristine``, written as archives; not to be changed."""
    return synthetic.write_dataset(synthetic.config(*ALL), tmp_path_factory.mktemp("packed"))


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A dataset of one tiny packed scene, in a folder of its own."""
    dataset = hostile.tiny(tmp_path / "here")
    convert(open_dataset(dataset), 0, "tar")
    return dataset


def export(kind: str, dataset: Path, out: Path, **options: Any) -> dict[str, bytes]:
    export_dataset(Options(kind, str(dataset), str(out), **options), progress=False)
    return tree(out)


class TestTheSame:
    def test_a_scene_is_one_file(self, pristine: Path, packed: Path) -> None:
        names = [f"{index:06d}.tar" for index in range(synthetic.SCENES)]
        assert sorted(path.name for path in packed.glob("scenes/*/*")) == names
        assert (packed / "dataset.json").read_bytes() == (pristine / "dataset.json").read_bytes()

    @pytest.mark.parametrize("tool", ["tar", "tarfile"])
    def test_ordinary_tar_unpacks_the_folder(self, pristine: Path, packed: Path, tmp_path: Path, tool: str) -> None:
        for index in range(synthetic.SCENES):
            archive, there = paths.archive_file(packed, index), tmp_path / str(index)
            there.mkdir()
            if tool == "tar":
                done = subprocess.run(["tar", "xf", archive, "-C", there], capture_output=True, text=True, check=True)
                assert done.stderr == ""
            else:
                with tarfile.open(archive) as tar:
                    tar.extractall(there, filter="data")
            assert tree(there) == tree(paths.scene_dir(pristine, index))

    def test_equal_scenes_give_equal_bytes(self, packed: Path, dataset: Path, pristine: Path, tmp_path: Path) -> None:
        again = synthetic.write_dataset(synthetic.config(*ALL), tmp_path / "again")
        assert tree(again) == tree(packed)
        assert all(convert(open_dataset(dataset), index, "tar") for index in range(synthetic.SCENES))
        assert tree(dataset) == tree(packed)
        assert not convert(open_dataset(dataset), 0, "tar")
        assert all(convert(open_dataset(dataset), index, "folder") for index in range(synthetic.SCENES))
        assert tree(dataset) == tree(pristine)

    def test_readers_see_no_difference(self, packed: Path, pristine: Path) -> None:
        for ours, theirs in zip(open_dataset(packed).scenes, open_dataset(pristine).scenes, strict=True):
            assert (ours.name, ours.index, ours.scene) == (theirs.name, theirs.index, theirs.scene)
            assert file_sizes(ours.path) == file_sizes(theirs.path)
            for mine, other in zip(ours.views, theirs.views, strict=True):
                assert mine.layers == other.layers
                for name in ("image", "depth_z", "normal", "instance", "position", "intrinsics", "camera_from_world"):
                    np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))

    def test_layers_that_were_not_written(self, one: Path) -> None:
        view = open_dataset(one).scenes[0].views[0]
        assert view.layers == ["rgb", "depth"] and view.normal is None
        with pytest.raises(DatasetError, match=r"000000\.tar/normal/0000\.exr is missing"):
            pack.read_content(view.file("normal"), "do something")

    def test_verify_says_the_same(self, packed: Path, pristine: Path) -> None:
        reports = [verify_dataset(path, progress=False, write=False) for path in (packed, pristine)]
        assert reports[0] == reports[1] and reports[0].passed

    @pytest.mark.parametrize("kind", ["paper", "colmap", "nerfstudio", "webdataset", "wai", "huggingface"])
    def test_exports_are_the_same(self, packed: Path, pristine: Path, tmp_path: Path, kind: str) -> None:
        options = {"scenes": "0-1"}
        ours = export(kind, packed, tmp_path / "ours", **options)
        assert ours == export(kind, pristine, tmp_path / "theirs", **options)

    def test_open_scene_reads_it(self, packed: Path, pristine: Path) -> None:
        archive, folder = paths.archive_file(packed, 1), paths.scene_dir(pristine, 1)
        for given in (archive, folder, folder / "scene.json"):
            options = open_scene.Options(str(given))
            assert options.file("scene.json").read_bytes() == (folder / "scene.json").read_bytes()
            assert options.file("render.json").read_bytes() == (folder / "render.json").read_bytes()
            dataset = open_scene.dataset_of(given)
            assert dataset is not None and dataset.name == "texture_00"

    def test_links_into_an_archive_are_refused(self, packed: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="inside an archive and cannot be hard-linked; use link=false"):
            export("paper", packed, tmp_path / "out", link=True)

    def test_both_forms_in_one_dataset(self, dataset: Path, pristine: Path) -> None:
        convert(open_dataset(dataset), 1, "tar")
        assert [scene.path.name for scene in open_dataset(dataset).scenes] == ["000000", "000001.tar", "000002"]
        assert verify_dataset(dataset, progress=False, write=False).passed
        synthetic.write_dataset(synthetic.config(*synthetic.ALL_LAYERS), dataset.parent)  # continues it
        assert [scene.path.name for scene in open_dataset(dataset).scenes] == ["000000", "000001.tar", "000002"]
        assert (dataset / "dataset.json").read_bytes() == (pristine / "dataset.json").read_bytes()

    def test_a_frame_is_read_without_the_others(self, tmp_path: Path) -> None:
        content = os.urandom(2**20)
        names = [f"rgb/{index:04d}.png" for index in range(32)]
        writer = ArchiveWriter(tmp_path / "000000.tar")
        for name in names:
            writer.add(name, content)
        files = {name: {"bytes": len(content), "sha256": ""} for name in names}
        writer.add("checksums.json", json_bytes({"format": CHECKSUMS_FORMAT, "files": files}))
        writer.finish()
        writer.close()

        def read_so_far() -> int:
            return int(Path("/proc/self/io").read_text().split()[1])

        before = read_so_far()
        tracemalloc.start()
        assert members(tmp_path / "000000.tar")["rgb/0031.png"].read_bytes() == content
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * 2**20 and read_so_far() - before < 1.5 * 2**20

    def test_frames_come_in_order(self, tmp_path: Path) -> None:
        writer = ArchiveWriter(tmp_path / "a.tar")
        writer.add("rgb/0001.png", b"1")
        with pytest.raises(ValueError, match="comes before"):
            writer.add("rgb/0000.png", b"0")
        writer.close()


def looked_at(dataset: Path, out: Path) -> None:
    """Read, verify and export a dataset; every error must be one of ours."""
    with contextlib.suppress(MegaSynthError):
        for view in open_dataset(dataset).scenes[0].views:
            assert view.image.size and view.depth_z.size
    with contextlib.suppress(MegaSynthError):
        export("webdataset", dataset, out)


def test_every_changed_byte_is_found(one: Path, tmp_path: Path) -> None:
    archive, draw = one / SCENE, random.Random(7)
    whole = archive.read_bytes()
    assert verify_dataset(one, progress=False, write=False).passed
    headers = [member.offset + draw.randrange(BLOCK) for member in members(archive).values() for _ in range(5)]
    places = headers + [draw.randrange(len(whole)) for _ in range(MUTATIONS)] + [len(whole) - 1, 0]
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << draw.randrange(8)
        archive.write_bytes(content)
        report = verify_dataset(one, progress=False, write=False)
        assert not report.passed, place
    for length in [0, 1, 511, 512, 1024, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(40))]:
        archive.write_bytes(whole[:length])
        assert not verify_dataset(one, progress=False, write=False).passed
        looked_at(one, tmp_path / "out")
    archive.write_bytes(whole)
    assert verify_dataset(one, progress=False, write=False).passed
    assert not (tmp_path / "out" / "texture_00-000000.tar").exists()


def strange(whole: bytes, draw: random.Random) -> bytes:
    """Return another archive of the same files, with something in it that we never write."""
    target, format_ = io.BytesIO(), draw.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        files = [(info, tar.extractfile(info).read()) for info in tar.getmembers()]  # type: ignore[union-attr]
    victim = draw.randrange(len(files))
    with tarfile.open(fileobj=target, mode="w", format=format_) as tar:
        for number, (info, content) in enumerate(files):
            if number == victim:
                kind = draw.randrange(6)
                if kind == 0:
                    info.type = draw.choice([tarfile.SYMTYPE, tarfile.LNKTYPE])
                    info.linkname = draw.choice(["/etc/passwd", "../../../dataset.json", "scene.json"])
                    content = b""
                elif kind == 1:
                    info.type = draw.choice([tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE])
                elif kind == 2:
                    info.name = draw.choice([name for name in hostile.NAMES if name.isprintable()])[:90] or "x"
                elif kind == 3:
                    info.mtime, info.uid, info.mode = draw.randrange(2**31), draw.randrange(9), draw.randrange(0o7777)
                elif kind == 4:
                    info.pax_headers = {draw.choice(["path", "size", "GNU.sparse.major"]): draw.choice(["1", "../x"])}
                else:
                    content = content[: draw.randrange(len(content))]
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def relisted(whole: bytes, draw: random.Random) -> bytes:
    """Return the archive with another index: spoilt in one or two places, its header made to fit."""
    start = whole.rfind(b"checksums.json\0")
    size = int(whole[start + 124 : start + 135], 8)
    record = hostile.spoil(json.loads(whole[start + BLOCK : start + BLOCK + size]), draw)
    content = json.dumps(record).encode()
    info = tarfile.TarInfo("checksums.json")
    info.size = len(content)
    padding = bytes(-len(content) % BLOCK)
    return whole[:start] + info.tobuf(tarfile.USTAR_FORMAT) + content + padding + bytes(2 * BLOCK)


def test_hostile_archives_are_refused_in_a_sentence(one: Path, tmp_path: Path) -> None:
    archive, draw, slowest = one / SCENE, random.Random(11), 0.0
    whole = archive.read_bytes()
    for number in range(HOSTILE):
        archive.write_bytes((strange, relisted)[number % 2](whole, draw))
        if archive.read_bytes() == whole:
            continue
        began = time.process_time()
        report = verify_dataset(one, progress=False, write=False)
        assert not report.passed and all("\n" not in finding.message for finding in report.findings)
        looked_at(one, tmp_path / "out" / str(number))
        with pytest.raises(MegaSynthError):
            convert(open_dataset(one), 0, "folder")
        slowest = max(slowest, time.process_time() - began)
    assert slowest < 2
    assert {path.name for path in tmp_path.iterdir()} <= {"here", "out"}
    assert [path.name for path in one.glob("scenes/*/*")] == ["000000.tar"] and not list(one.glob("tmp/*"))


@pytest.mark.parametrize("names", [("rgb", "rgb/0000.png"), ("a/b/c.png",), ("checksums.json/x",)])
def test_archives_that_make_no_folder_are_refused(one: Path, names: tuple[str, ...]) -> None:
    archive, content = one / SCENE, b"content"
    archive.unlink()
    writer = ArchiveWriter(archive)
    with contextlib.closing(writer), contextlib.suppress(DatasetError):
        for name in in_order(names):
            writer.add(name, content)
    record = {"bytes": len(content), "sha256": "0" * 64}
    index = json_bytes({"format": CHECKSUMS_FORMAT, "files": dict.fromkeys(names, record)})
    info = tarfile.TarInfo("checksums.json")
    info.size = len(index)
    written = archive.read_bytes()
    archive.write_bytes(
        written + info.tobuf(tarfile.USTAR_FORMAT) + index + bytes(-len(index) % BLOCK) + bytes(2 * BLOCK)
    )
    with pytest.raises(DatasetError, match=r"is a file and a folder of files|a scene holds no 'a/b/c\.png'"):
        convert(open_dataset(one), 0, "folder")
    assert [path.name for path in one.glob("scenes/*/*")] == ["000000.tar"]


def test_huge_and_sparse_archives_cost_nothing(one: Path) -> None:
    archive = one / SCENE
    with archive.open("r+b") as file:
        file.truncate(2**40)
    tracemalloc.start()
    began = time.process_time()
    assert not verify_dataset(one, progress=False, write=False).passed
    assert tracemalloc.get_traced_memory()[1] < 2**28 and time.process_time() - began < 2
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["fifo", "folder", "link out", "dangling"])
def test_what_is_no_archive(one: Path, tmp_path: Path, kind: str) -> None:
    archive = one / SCENE
    archive.rename(tmp_path / "elsewhere.tar")
    if kind == "fifo":
        os.mkfifo(archive)
    elif kind == "folder":
        archive.mkdir()
    else:
        archive.symlink_to(tmp_path / ("elsewhere.tar" if kind == "link out" else "nowhere"))
    report = verify_dataset(one, progress=False, write=False)
    assert [f.check for f in report.findings if f.severity == "error"][:1] == ["files"]


class TestConverting:
    def test_command(self, dataset: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pack.main([f"dataset={dataset.parent}", "scenes=0-1"])
        assert "texture_00: 2 of 2 scenes became a tar file" in capsys.readouterr().out
        pack.main([f"dataset={dataset}"])
        assert "texture_00: 1 of 3 scenes became a tar file" in capsys.readouterr().out
        assert tree(dataset) == tree(packed)

    def test_a_damaged_scene_is_named_and_kept(self, dataset: Path) -> None:
        file = dataset / "scenes/000/000001/rgb/0003.png"
        file.write_bytes(file.read_bytes()[:-1])
        before = tree(dataset)
        with pytest.raises(DatasetError, match=r"000001/rgb/0003\.png: the file has \d+ bytes, but \d+ were written"):
            convert(open_dataset(dataset), 1, "tar")
        assert tree(dataset) == before
        with pytest.raises(DatasetError, match=r": 1 scenes left as they are, the first: .*000001/rgb/0003"):
            pack.main([f"dataset={dataset}"])
        assert [scene.path.name for scene in open_dataset(dataset).scenes] == ["000000.tar", "000001", "000002.tar"]

    def test_what_does_not_belong_to_a_scene_is_not_lost(self, dataset: Path) -> None:
        (dataset / "scenes/000/000001/notes.txt").write_text("years of work")
        with pytest.raises(DatasetError, match=r"notes\.txt is no file of the scene; move it elsewhere"):
            convert(open_dataset(dataset), 1, "tar")
        assert (dataset / "scenes/000/000001/notes.txt").read_text() == "years of work"

    @pytest.mark.parametrize("to", ["tar", "folder"])
    def test_one_that_was_killed_before_the_old_form_went(self, dataset: Path, packed: Path, to: str) -> None:
        """Both forms are there: the folder counts, and the next command finishes."""
        shutil.copy(paths.archive_file(packed, 1), paths.archive_file(dataset, 1))
        assert [scene.path.name for scene in open_dataset(dataset).scenes] == ["000000", "000001", "000002"]
        assert convert(open_dataset(dataset), 1, to)
        kept, gone = paths.archive_file(dataset, 1), paths.scene_dir(dataset, 1)
        assert (kept.exists(), gone.exists()) == ((True, False) if to == "tar" else (False, True))
        assert verify_dataset(dataset, progress=False, write=False).passed

    @pytest.mark.parametrize("to", ["tar", "folder"])
    def test_commands_that_turn_scenes_to_and_fro_lose_none(
        self, dataset: Path, packed: Path, to: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other command has seen both forms, and removes the one that this one has just made."""
        made = dataset if to == "tar" else Path(shutil.copytree(packed, dataset.parent / "packed"))

        def undone(built: Path, new: Path) -> bool:
            publish(built, new)
            new.rename(dataset.parent / "gone")
            return True

        monkeypatch.setattr(pack, "publish", undone)
        convert(open_dataset(made), 1, to)
        assert paths.finished_scenes(made) == [0, 1, 2]
        assert not list(made.glob("tmp"))

    def test_another_command_may_be_faster(self, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = open_dataset(dataset)

        def removed(scene: SceneData) -> None:
            monkeypatch.undo()
            assert convert(opened, 1, "tar")

        monkeypatch.setattr(pack, "_require_whole", removed)
        assert not convert(opened, 1, "tar")
        assert verify_dataset(dataset, progress=False, write=False).passed


KILLED = """
import sys
from megasynth_attr.dataset import pack
print("ready", flush=True)
while True:
    for form in ("tar", "folder"):
        pack.main(["dataset={dataset}", "to=" + form])
"""


def test_kill_9_while_packing_leaves_every_scene_whole(dataset: Path, packed: Path) -> None:
    draw = random.Random(3)
    code = KILLED.format(dataset=dataset)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert paths.finished_scenes(dataset) == [0, 1, 2]
        for scene in open_dataset(dataset).scenes:
            scene.require_intact()
    pack.main([f"dataset={dataset}"])
    assert tree(dataset) == tree(packed)


def test_what_a_killed_writer_leaves_is_removed(tmp_path: Path, packed: Path) -> None:
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import synthetic
from pathlib import Path
from megasynth_attr.dataset.writer import SceneWriter, open_for_writing
settings = synthetic.config(*{ALL!r})
folder = open_for_writing(settings, Path({str(tmp_path)!r}), 0)
spec = synthetic.scene(settings, 0)
writer = SceneWriter(folder, spec, synthetic.WIDTH, synthetic.HEIGHT, settings.write, {{}}).__enter__()
for index, frame in enumerate(synthetic.frames(settings, spec)):
    writer.write_frame(index, frame)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    folder = tmp_path / "texture_00"
    assert paths.finished_scenes(folder) == [] and list((folder / "tmp").iterdir())
    assert tree(synthetic.write_dataset(synthetic.config(*ALL), tmp_path)) == tree(packed)
    assert not (folder / "tmp").exists()


def test_a_scene_in_the_other_form_is_not_written_again(dataset: Path) -> None:
    settings = synthetic.config(*ALL)
    before = tree(dataset)
    assert synthetic.write_scene(settings, dataset, synthetic.scene(settings, 1)) == paths.scene_dir(dataset, 1)
    assert {name: data for name, data in tree(dataset).items() if not name.startswith("tmp")} == before
    assert isinstance(open_dataset(dataset).scene(1), SceneData)
