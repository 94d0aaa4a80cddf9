"""Killed processes, full and read-only disks: nothing half-written is ever found under a final name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import synthetic
from synthetic import tree

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.temporary import new_temporary_folder, written_beside
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.images import write_exr, write_png
from megasynth_attr.dataset.record import open_for_writing
from megasynth_attr.dataset.writer import SceneWriter

SLOW_WRITER = """
import sys, time
sys.path.insert(0, {here!r})
import synthetic
from pathlib import Path
from megasynth_attr.dataset.writer import SceneWriter, open_for_writing

settings = synthetic.config(*synthetic.ALL_LAYERS)
folder = open_for_writing(settings, Path({out!r}), 0)
synthetic.write_scene(settings, folder, synthetic.scene(settings, 0))
spec = synthetic.scene(settings, 1)
with SceneWriter(folder, spec, synthetic.WIDTH, synthetic.HEIGHT, settings.write, {{}}) as writer:
    for index, frame in enumerate(synthetic.frames(settings, spec)):
        writer.write_frame(index, frame)
        print("frame", index, flush=True)
        time.sleep(0.3)
    writer.commit()
"""


def test_kill_9_loses_only_the_scene_in_flight(pristine: Path, tmp_path: Path) -> None:
    code = SLOW_WRITER.format(here=str(Path(__file__).parent), out=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("frame 2"):
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    folder = tmp_path / "texture_00"
    assert paths.finished_scenes(folder) == [0]
    assert [path.name.split(".")[0] for path in (folder / "tmp").iterdir() if path.is_dir()] == ["000001"]
    again = synthetic.write_dataset(synthetic.config(*synthetic.ALL_LAYERS), tmp_path)
    assert tree(again) == tree(pristine)
    assert not (folder / "tmp").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 120 kB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("pack", ["folder", "tar"])
def test_full_disk(small_disk: Path, pack: str) -> None:
    settings = synthetic.config(*synthetic.ALL_LAYERS, f"write.pack={pack}")
    folder = open_for_writing(settings, small_disk, 0)
    with pytest.raises(
        EnvironmentProblem, match=r"000000\..*No space left.*the disk is full; free some space"
    ) as caught:
        synthetic.write_scene(settings, folder, synthetic.scene(settings, 0))
    assert int(caught.value.exit_code) == 4
    assert paths.finished_scenes(folder) == []
    assert not list((folder / "tmp").iterdir())
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(1_000_000))
    record = (folder / "dataset.json").read_bytes()
    with pytest.raises(EnvironmentProblem, match="the disk is full"):
        open_for_writing(synthetic.config(*synthetic.ALL_LAYERS, "scene_count=50"), small_disk, 0)
    assert (folder / "dataset.json").read_bytes() == record


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("kind", ["png", "exr"])
def test_images_name_a_full_disk(tmp_path: Path, kind: str) -> None:
    full = tmp_path / "image"
    full.symlink_to("/dev/full")  # accepts no byte
    frame = next(synthetic.frames(synthetic.config(), synthetic.scene(synthetic.config(), 0)))
    with pytest.raises(EnvironmentProblem, match="No space left on device; the disk is full"):
        write_png(full, frame.rgba) if kind == "png" else write_exr(full, {"Z": frame.depth_z})


def test_errors_of_the_encoder_surface(tmp_path: Path) -> None:
    """The frame is encoded in the background: a failure there is raised by the next call, and again nothing is left."""
    settings = synthetic.config()
    folder = open_for_writing(settings, tmp_path, 0)
    spec = synthetic.scene(settings, 0)
    images = list(synthetic.frames(settings, spec))
    with (
        pytest.raises(EnvironmentProblem, match="cannot be written"),
        SceneWriter(folder, spec, synthetic.WIDTH, synthetic.HEIGHT, settings.write, {}) as writer,
    ):
        temporary = next(path for path in (folder / "tmp").iterdir() if path.is_dir())
        (temporary / "depth").rmdir()
        for index, frame in enumerate(images):
            writer.write_frame(index, frame)
        writer.commit()
    assert paths.finished_scenes(folder) == [] and not list((folder / "tmp").iterdir())


READ_ONLY = """
import os, sys
sys.path.insert(0, {here!r})
import synthetic
from pathlib import Path
from megasynth_attr.dataset.writer import open_for_writing
from megasynth_attr.core.errors import run_main

settings = synthetic.config()
if os.geteuid() == 0:
    os.seteuid(65534)  # nobody: root may write anywhere
sys.exit(run_main(lambda words: open_for_writing(settings, Path({out!r}), 0), []))
"""


def test_read_only_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("readonly")
    for parent in list(out.parents)[:3]:  # pytest's own, one more where tests run side by side
        if parent.stat().st_uid == os.geteuid() and parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    out.chmod(0o555)
    code = READ_ONLY.format(here=str(Path(__file__).parent), out=str(out))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    out.chmod(0o755)
    assert done.returncode == 4, done.stderr
    assert "EnvironmentProblem: the dataset cannot be written to" in done.stderr
    assert "change the folder's rights or choose another out=" in done.stderr
    assert list(out.iterdir()) == []


def test_unwritable_image_folder_is_named(tmp_path: Path) -> None:
    frame = next(synthetic.frames(synthetic.config(), synthetic.scene(synthetic.config(), 0)))
    with pytest.raises(EnvironmentProblem, match=r"nowhere.z\.exr: .*No such file"):
        write_exr(tmp_path / "nowhere" / "z.exr", {"Z": frame.depth_z})


def test_many_write_beside_each_other_and_leave_no_work_behind(tmp_path: Path) -> None:
    """Each removes tmp when it is empty: another may be about to make its folder in it."""

    def write(number: int) -> None:
        with written_beside(tmp_path / f"{number % 8}.txt", "file") as temporary:
            temporary.write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(400)))
    assert {path.name for path in tmp_path.iterdir()} == {f"{number}.txt" for number in range(8)}


def test_an_error_while_writing_beside_leaves_the_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), written_beside(tmp_path / "a.txt", "file") as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]
    foreign = new_temporary_folder(tmp_path / paths.TMP, "other")
    with written_beside(tmp_path / "a.txt", "file") as temporary:
        temporary.write_text("new")
    assert foreign.is_dir() and (tmp_path / "a.txt").read_text() == "new"
