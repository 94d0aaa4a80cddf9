"""The cache: equal batches with and without it, cold and warm; whatever happens to it, training goes on or says why."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem
from megasynth_attr.core.fields import identity_of
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.dataset.images import read_image, write_depth, write_png
from megasynth_train.data import cache as cache_module
from megasynth_train.data import loader as loader_module
from megasynth_train.data import sources
from megasynth_train.data.cache import FrameCache, open_cache
from megasynth_train.data.layouts import ours as our_layout
from megasynth_train.data.layouts.ours import read_views
from megasynth_train.data.layouts.view import FileView
from megasynth_train.data.loader import StepLoader
from megasynth_train.data.plan import Sampling
from megasynth_train.data.sources import open_sources
from megasynth_train.training.settings import DataSettings

FRAME_BYTES = 70 * 56 * 7 + 4
ALL_FRAMES = 18  # of three scenes of six views


def loaded(source, steps=5, scenes=None, **changes):
    """Return everything in the batches of some steps, as bytes; every step takes whole scenes, of the source if they
    have not been opened.
    """
    settings = DataSettings((str(source),), validation_share=0, views=Uniform(6, 6), images_per_step=18, width_px=70)
    settings = replace(settings, workers=0, **changes) if "workers" not in changes else replace(settings, **changes)
    batches = list(StepLoader(Sampling(scenes or open_sources(settings).train, settings, 11), range(steps)))
    return [
        [
            b.names,
            b.views,
            *(t.numpy().tobytes() for t in (*b.images_u8, *b.depth_z, b.intrinsics, b.camera_from_world)),
        ]
        for b in batches
    ]


def frames_in(folder):
    return sorted(path for path in (folder / "frames").iterdir() if path.is_file())


@pytest.fixture(scope="module")
def reference(ours):
    return loaded(ours)


@pytest.fixture
def no_decoding(monkeypatch):
    """Let nothing decode a file from here on."""

    def refuse(frame):
        raise AssertionError("a frame was decoded")

    def forbid():
        for kind in (our_layout.OurView, FileView):
            monkeypatch.setattr(kind, "decode", refuse)
        monkeypatch.setattr(sources, "_checked", lambda scene: [])  # looks at a few views before any step

    return forbid


class TestEqual:
    @pytest.mark.parametrize("layout", ["ours", "packed", "paper"])
    def test_cold_and_warm(self, layout, reference, request, tmp_path, no_decoding):
        source, cache = request.getfixturevalue(layout), str(tmp_path / "new" / "cache")
        assert loaded(source, cache=cache) == reference
        assert [path.stat().st_size for path in frames_in(Path(cache))] == [FRAME_BYTES] * ALL_FRAMES
        scenes = open_sources(DataSettings((str(source),), validation_share=0)).train  # which may look at a few views
        no_decoding()
        assert loaded(source, scenes=scenes, cache=cache) == reference
        assert loaded(source, scenes=scenes, cache=cache, workers=2) == reference

    def test_workers_fill_it_together(self, ours, reference, tmp_path, no_decoding):
        assert loaded(ours, cache=str(tmp_path), workers=2, prefetch=1) == reference
        no_decoding()
        assert loaded(ours, cache=str(tmp_path)) == reference

    def test_the_library_reads_what_we_read(self, ours, reference, monkeypatch):
        monkeypatch.setattr(our_layout, "decode_intact_exr", our_layout.decode_exr)
        assert loaded(ours) == reference

    def test_it_is_no_part_of_a_run(self):
        settings = DataSettings()
        assert identity_of(replace(settings, cache="/dev/shm", cache_gib=1.0)) == identity_of(settings)


class TestChangedFiles:
    """What was kept never hides what has become of a file."""

    @pytest.mark.parametrize(
        ("layout", "kind"),
        [*product(("ours", "paper"), ("missing", "truncated", "size")), ("ours", "negative")],
    )
    def test_unreadable_files_are_named_as_without_a_cache(self, ours_copy, paper_copy, tmp_path, layout, kind):
        source, cache = ours_copy if layout == "ours" else paper_copy, str(tmp_path / "cache")
        loaded(source, cache=cache)
        scenes = source / "scenes/000/000001" if layout == "ours" else source / "texture_00/000001"
        image = scenes / ("rgb/0001.png" if layout == "ours" else "renderings/00000001_rgba.png")
        depth = scenes / ("depth/0001.exr" if layout == "ours" else "renderings/00000001_depth.exr")
        if kind == "missing":
            image.unlink()
        elif kind == "truncated":
            depth.write_bytes(depth.read_bytes()[:300])
        elif kind == "size":
            write_png(image, read_image(image)[:-1])
        else:
            write_depth(depth, np.full((56, 70), -1, np.float32), "float32")
        said = []
        for folder in (cache, ""):
            with pytest.raises(DatasetError) as caught:
                loaded(source, cache=folder)
            said.append(str(caught.value))
        assert said[0] == said[1] and (image if kind in ("missing", "size") else depth).name in said[0]

    @pytest.mark.parametrize("same_size", [True, False])
    def test_a_changed_file_is_decoded_and_not_kept(self, ours_copy, tmp_path, reference, same_size):
        cache = tmp_path / "cache"
        assert loaded(ours_copy, cache=str(cache)) == reference
        file = ours_copy / "scenes/000/000000/depth/0003.exr"
        before = file.stat()
        write_depth(file, np.full((56, 70), 3.5, np.float32), "float32")
        if same_size:
            file.write_bytes(file.read_bytes().ljust(before.st_size, b"\0"))
        changed = loaded(ours_copy, cache=str(cache))
        assert changed == loaded(ours_copy) != reference
        assert len(frames_in(cache)) == ALL_FRAMES

    def test_another_dataset_in_the_place_of_one(self, ours_copy, tmp_path, reference):
        """Same names and times, and its checksums are right: two scenes have exchanged what they show."""
        cache = str(tmp_path / "cache")
        assert loaded(ours_copy, cache=cache) == reference
        first, second = ours_copy / "scenes/000/000000", ours_copy / "scenes/000/000001"
        times = {path.relative_to(first): path.stat().st_mtime_ns for path in first.rglob("*.*")}
        first.rename(tmp_path / "first")
        second.rename(first)
        (tmp_path / "first").rename(second)
        for scene in (first, second):
            for name, time_ns in times.items():
                os.utime(scene / name, ns=(time_ns, time_ns))
        changed = loaded(ours_copy)
        assert loaded(ours_copy, cache=cache) == changed != reference

    def test_only_whole_files_reach_the_library(self, ours_copy, monkeypatch):
        """It complains on its own about damaged ones."""
        for file in ours_copy.glob("scenes/*/*/depth/*.exr"):
            file.write_bytes(file.read_bytes()[:-1] + b"x")
        monkeypatch.setattr(our_layout, "decode_intact_exr", None)
        with pytest.raises(DatasetError, match=r"\.exr cannot be read"):
            loaded(ours_copy)

    def test_a_file_that_goes_while_it_is_decoded(self, ours_copy, tmp_path, reference, monkeypatch):
        decode = our_layout.OurView.decode

        def decoded_and_gone(frame):
            arrays = decode(frame)
            frame.view.file("rgb").unlink()
            return arrays

        monkeypatch.setattr(our_layout.OurView, "decode", decoded_and_gone)
        assert loaded(ours_copy, steps=1, cache=str(tmp_path / "cache")) == reference[:1]
        assert not frames_in(tmp_path / "cache")

    def test_without_checksums_nothing_is_kept(self, ours_copy, tmp_path, reference):
        for file in ours_copy.glob("scenes/*/*/checksums.json"):
            file.unlink()
        assert loaded(ours_copy, cache=str(tmp_path / "cache")) == reference
        assert not frames_in(tmp_path / "cache")


class TestLimit:
    def test_it_is_kept_by_several_processes(self, ours, reference, tmp_path):
        limit = 7.5 * FRAME_BYTES / 2**30
        assert loaded(ours, cache=str(tmp_path), cache_gib=limit, workers=2, prefetch=1) == reference
        assert 1 <= len(frames_in(tmp_path)) <= 7
        assert loaded(ours, cache=str(tmp_path), cache_gib=limit) == reference

    def test_only_frames_of_earlier_runs_make_way(self, ours, reference, tmp_path):
        loaded(ours, cache=str(tmp_path))
        long_ago = 1e9  # before any process of today began
        old, foreign = frames_in(tmp_path), [tmp_path / "frames/notes.txt", tmp_path / "frames" / "ab"]
        for path in foreign:
            path.write_text("mine")
        for path in old[:12]:
            os.utime(path, (long_ago, long_ago))
        shutil.copy(old[0], tmp_path / "frames" / ("0" * 64))  # nobody used it, but not long ago
        new = tmp_path / ("1" * 64)
        shutil.copy(old[0], new)
        assert FrameCache(tmp_path, 18 * FRAME_BYTES)._add(new, FRAME_BYTES) is True
        left = set(frames_in(tmp_path)) - set(foreign)
        assert {*old[12:], tmp_path / "frames" / ("0" * 64)} <= left and len(
            left
        ) == 17  # nine tenths of 18, and the new one
        assert all(path.read_text() == "mine" for path in foreign)
        assert FrameCache(tmp_path, 7 * FRAME_BYTES)._add(new, FRAME_BYTES) is False
        assert loaded(ours, cache=str(tmp_path)) == reference

    def test_what_is_used_counts_as_used(self, ours, tmp_path):
        loaded(ours, cache=str(tmp_path))
        for path in frames_in(tmp_path):
            os.utime(path, (1, 1))
        loaded(ours, cache=str(tmp_path))
        assert all(path.stat().st_mtime > time.time() - 100 for path in frames_in(tmp_path))

    def test_nothing_is_kept_at_0(self, ours, reference, tmp_path):
        assert loaded(ours, cache=str(tmp_path), cache_gib=0) == reference
        assert not frames_in(tmp_path)


class TestTrouble:
    def test_a_damaged_frame_is_decoded_again(self, ours, reference, tmp_path):
        """Emptied or cut short by a power cut, too long, of zeros, or with one wrong bit anywhere."""
        loaded(ours, cache=str(tmp_path))
        good = {path: path.read_bytes() for path in frames_in(tmp_path)}
        wrong = [b"", b"short", b"\0" * (FRAME_BYTES + 1), b"\0" * FRAME_BYTES]
        for place in (0, FRAME_BYTES // 2, FRAME_BYTES - 5, FRAME_BYTES - 1):
            flipped = bytearray(next(iter(good.values())))
            flipped[place] ^= 1
            wrong.append(bytes(flipped))
        for path, content in zip(good, wrong, strict=False):
            path.write_bytes(content)
        (tmp_path / "used").write_text("")
        assert loaded(ours, cache=str(tmp_path)) == reference
        assert {path: path.read_bytes() for path in frames_in(tmp_path)} == good

    def test_a_killed_run_leaves_whole_frames(self, ours, reference, tmp_path):
        script = f"""
            import os, signal
            import test_data_cache
            from megasynth_train.data import cache
            write, count = cache.write_durably, iter(range(100))
            def killed(path, content):
                if next(count) == 4:
                    path.write_bytes(content[:100])
                    os.kill(os.getpid(), signal.SIGKILL)
                write(path, content)
            cache.write_durably = killed
            test_data_cache.loaded({str(ours)!r}, cache={str(tmp_path)!r})
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=_env(), check=False)
        assert done.returncode == -signal.SIGKILL
        assert [path.stat().st_size for path in frames_in(tmp_path)] == [FRAME_BYTES] * 4
        assert list((tmp_path / "frames/tmp").iterdir())
        assert loaded(ours, cache=str(tmp_path)) == reference
        assert len(frames_in(tmp_path)) == ALL_FRAMES and not (tmp_path / "frames/tmp").exists()

    @pytest.mark.filterwarnings("error")
    def test_a_full_disk_is_said_once_and_training_goes_on(self, ours, reference, tmp_path, monkeypatch):
        def full(path, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(cache_module, "write_durably", full)
        with pytest.warns(UserWarning, match=r"data\.cache: no more frames are kept in .*No space left") as said:
            assert loaded(ours, cache=str(tmp_path)) == reference
        assert len(said) == 1

    @pytest.mark.filterwarnings("error")
    def test_training_goes_on_when_the_folder_is_removed(self, ours, reference, tmp_path):
        cache = tmp_path / "cache"
        kept = FrameCache(cache, 10**9)
        with pytest.warns(UserWarning, match=r"no more frames are kept in .*choose another data\.cache="):
            frames = [kept.read(frame) for frame in read_views(next(ours.glob("scenes/*/*")))]
        assert len(frames) == 6 and not cache.exists()
        assert loaded(ours, cache=str(cache)) == reference

    @pytest.mark.parametrize("what", ["a file", "somebody's", "another record"])
    def test_other_folders_are_refused_and_left_alone(self, ours, tmp_path, what):
        folder = tmp_path / "folder"
        if what == "a file":
            folder.write_text("mine")
        else:
            folder.mkdir()
            (folder / ("thesis.tex" if what == "somebody's" else "cache.json")).write_text("{}")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ConfigError, match=r"data\.cache=") as caught:
            loaded(ours, cache=str(folder))
        assert "\n" not in str(caught.value) and "out=" not in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_limit_that_does_not_fit(self, ours, tmp_path):
        with pytest.raises(EnvironmentProblem, match=r"data\.cache_gib=1e\+06 does not fit: .* GiB are free there"):
            loaded(ours, cache=str(tmp_path / "cache"), cache_gib=1e6)
        assert not (tmp_path / "cache").exists()

    def test_shared_memory_must_hold_it_beside_the_batches(self, ours, tmp_path, monkeypatch):
        monkeypatch.setattr(loader_module, "SHARED_MEMORY", tmp_path)
        monkeypatch.setattr(loader_module.shutil, "disk_usage", lambda path: _Usage())
        with pytest.raises(EnvironmentProblem, match=r"lower data\.cache_gib, data\.workers"):
            loaded(ours, cache=str(tmp_path / "cache"), cache_gib=0.093, workers=1)
        assert loaded(ours, cache=str(tmp_path / "cache"), cache_gib=0.01, workers=1)

    def test_shared_memory_itself_is_shared(self):
        cache = cache_module._cache(replace(DataSettings(), cache="/dev/shm"))
        assert cache.folder == Path(f"/dev/shm/megasynth-frames-{os.getuid()}")

    @pytest.mark.parametrize("kind", ["link", "folder"])
    def test_what_another_user_has_put_there_is_refused(self, kind, tmp_path, monkeypatch):
        """Everybody may write to /dev/shm: frames in it would be trained on, and a link written through."""
        monkeypatch.setattr(cache_module, "SHARED_MEMORY", tmp_path)
        folder = tmp_path / f"megasynth-frames-{os.getuid()}"
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to("elsewhere") if kind == "link" else folder.mkdir()
        if kind == "folder":
            if os.getuid():
                pytest.skip("only root can give a folder away")
            os.chown(folder, 1, -1)
        with pytest.raises(EnvironmentProblem, match="is a link or another user's"):
            open_cache(replace(DataSettings(), cache=str(tmp_path)))
        assert not any((tmp_path / "elsewhere").iterdir())
        assert open_cache(DataSettings()) is None


class _Usage:
    free = 100_000_000


def _env():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
