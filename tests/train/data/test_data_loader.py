"""The loader: equal bytes for any number of workers and any start, typed errors, replacements, no process left over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.dataset.images import write_depth
from megasynth_train.data import loader as loader_module
from megasynth_train.data.loader import StepLoader
from megasynth_train.data.plan import Sampling
from megasynth_train.data.sources import open_sources
from megasynth_train.training.settings import DataSettings

SHORT = DataSettings(views=Uniform(2, 4), images_per_step=8, validation_share=0, width_px=70, workers=0)


def loaded(folder, first=0, steps=5, start_method=None, **changes):
    settings = replace(SHORT, sources=(str(folder),), **changes)
    return list(StepLoader(sampling(settings), range(first, steps), start_method=start_method))


def sampling(settings, **more):
    return Sampling(open_sources(settings).train, settings, 11, **more)


def content(batch):
    """Return everything in a batch, as bytes."""
    tensors = (*batch.images_u8, *batch.depth_z, batch.intrinsics, batch.camera_from_world)
    arrays = [batch.windows, batch.jitter.factors, batch.jitter.order, batch.jitter.grey]
    data = b"".join(np.ascontiguousarray(a).tobytes() for a in (*(t.numpy() for t in tensors), *arrays))
    return batch.step, batch.names, batch.views, batch.image_size_hw, batch.skipped, batch.reads, data


@pytest.fixture(scope="module")
def reference(ours):
    return [content(batch) for batch in loaded(ours)]


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes_in_order(ours, reference, workers):
    assert [content(batch) for batch in loaded(ours, workers=workers, prefetch=1)] == reference
    assert [step for step, *_ in reference] == list(range(5))


@pytest.mark.parametrize("workers", [0, 1])
def test_packed_scenes_give_the_same_bytes(packed, reference, workers):
    assert [content(batch) for batch in loaded(packed, workers=workers)] == reference


@pytest.mark.slow
def test_spawned_workers_give_the_same_bytes(ours, reference):
    assert [content(b) for b in loaded(ours, steps=2, workers=1, start_method="spawn")] == reference[:2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_start_at_any_step_continues(ours, reference, workers):
    assert [content(batch) for batch in loaded(ours, first=3, workers=workers)] == reference[3:]


def test_a_second_pass_repeats_the_first_with_the_same_processes(ours, reference):
    settings = replace(SHORT, sources=(str(ours),), workers=1)
    loader = StepLoader(sampling(settings), range(5))
    for _ in range(2):
        assert [content(batch) for batch in loader] == reference
    iterator = iter(loader)
    next(iterator)  # a pass that is given up does not confuse the next
    assert [content(batch) for batch in loader] == reference and len(loader) == 5
    loader.close()
    with pytest.raises(ValueError, match="closed"):
        next(iter(loader))


def test_the_global_generators_are_left_alone(ours):
    before = torch.get_rng_state()
    numbers = np.random.get_state()[1].copy()  # noqa: NPY002
    loaded(ours, steps=2)
    loaded(ours, steps=2, workers=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002


def spoil(folder, scene):
    """Damage one depth map of a scene, NaN among good values."""
    depth = np.ones((56, 70), np.float32)
    depth[0, 0] = np.nan
    for view in range(6):
        write_depth(folder / f"scenes/000/00000{scene}/depth/{view:04d}.exr", depth, "float32")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_stops_with_its_name_and_nothing_else(ours_copy, workers):
    spoil(ours_copy, 1)
    with pytest.raises(DatasetError) as caught:
        loaded(ours_copy, workers=workers)
    message = str(caught.value)
    assert "000001/depth/" in message and "\n" not in message and "Traceback" not in message


def test_skipping_replaces_counts_and_does_not_depend_on_the_workers(ours_copy):
    spoil(ours_copy, 1)
    options = {"on_bad_file": "skip", "max_bad_share": 1.0}
    batches = loaded(ours_copy, **options)
    assert [content(b) for b in loaded(ours_copy, **options, workers=2)] == [content(b) for b in batches]
    assert any(b.skipped for b in batches)
    for batch in batches:
        assert all(not name.endswith("000001") for name in batch.names)
        assert batch.reads == len(batch.names) + len(batch.skipped)
        for bad in batch.skipped:
            assert bad.scene == "texture_00/000001" and "000001/depth/" in bad.reason


def test_too_many_bad_files_stop_all_the_same(ours_copy):
    spoil(ours_copy, 1)
    with pytest.raises(DatasetError, match=r"more than data\.max_bad_share=0\.05 allows; the last: .*depth/"):
        loaded(ours_copy, steps=40, on_bad_file="skip")
    with pytest.raises(DatasetError, match=r"1 of \d+ scenes could not be read"):
        loaded(ours_copy, steps=40, on_bad_file="skip", max_bad_share=0)


def test_when_no_scene_can_be_read(ours_copy):
    for scene in range(3):
        shutil.rmtree(ours_copy / f"scenes/000/00000{scene}/rgb")
    with pytest.raises(DatasetError, match=r"none of the 3 scenes could be read; the last: .*\.png is missing"):
        loaded(ours_copy, on_bad_file="skip", max_bad_share=1)


def test_a_worker_that_dies_is_an_environment_problem(ours):
    settings = replace(SHORT, sources=(str(ours),), workers=1, prefetch=1)
    loader = StepLoader(sampling(settings), range(500))
    iterator = iter(loader)
    next(iterator)
    for process in loader._loader._iterator._workers:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentProblem, match="a loader process died"):
        for _ in iterator:
            pass


def test_workers_leave_signals_to_the_main_process(ours, reference):
    settings = replace(SHORT, sources=(str(ours),), workers=1, prefetch=1)
    loader = StepLoader(sampling(settings), range(5))
    got = []
    for batch in loader:
        for process in loader._loader._iterator._workers:
            subprocess.run(["kill", "-TERM", str(process.pid)], check=True)  # not by its parent
            os.kill(process.pid, signal.SIGINT)
        got.append(content(batch))
    assert got == reference
    pids = [process.pid for process in loader._loader._iterator._workers]
    os.kill(pids[0], signal.SIGTERM)  # by its parent
    deadline = time.monotonic() + 10
    while _running(pids[0]):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_shared_memory_that_is_too_small_is_said_beforehand(ours, monkeypatch):
    monkeypatch.setattr(loader_module.shutil, "disk_usage", lambda path: _Usage())
    with pytest.raises(EnvironmentProblem, match=r"MB of shared memory are needed.*data\.workers=0"):
        loaded(ours, workers=2)
    assert len(loaded(ours, workers=0)) == 5


class _Usage:
    free = 100_000


@pytest.mark.slow
def test_killing_the_main_process_ends_its_workers(ours):
    script = f"""
        import os, signal
        from dataclasses import replace
        from megasynth_attr.core.ranges import Uniform
        from megasynth_train.data.loader import StepLoader
        from megasynth_train.data.plan import Sampling
        from megasynth_train.data.sources import open_sources
        from megasynth_train.training.settings import DataSettings
        settings = DataSettings(views=Uniform(2, 4), images_per_step=8, width_px=70, workers=2, prefetch=1,
                                validation_share=0, sources=({str(ours)!r},))
        loader = StepLoader(Sampling(open_sources(settings).train, settings, 0), range(1000))
        next(iter(loader))
        print(*(w.pid for w in loader._loader._iterator._workers), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    pids = [int(pid) for pid in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and len(pids) == 2, done.stderr
    deadline = time.monotonic() + 30
    while alive := [pid for pid in pids if _running(pid)]:
        assert time.monotonic() < deadline, f"{alive} still run"
        time.sleep(0.2)


def _running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ranks_read_different_scenes_of_equal_shape(ours):
    settings = replace(SHORT, sources=(str(ours),), images_per_step=4, views=Uniform(4, 4))
    ranks = [list(StepLoader(sampling(settings, rank=rank, world=3), range(6))) for rank in range(3)]
    for batches in zip(*ranks, strict=True):
        assert len({b.image_size_hw for b in batches}) == 1
        assert len({name for b in batches for name in b.names}) == 3


def test_validation_without_scenes_is_refused(ours):
    settings = replace(SHORT, sources=(str(ours),))
    with pytest.raises(DatasetError, match="no validation scene"):
        StepLoader(Sampling(open_sources(settings).validation, settings, 0, training=False), range(5))
