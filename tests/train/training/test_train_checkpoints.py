"""Checkpoints and metrics on disk: whole or absent, damage found, nothing saved is lost."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem
from megasynth_train.training.checkpoints import (
    latest_checkpoint,
    read_best,
    save_best,
    save_checkpoint,
    saved_steps,
)
from megasynth_train.training.metrics import FILE, Interval, MetricsWriter, read_metrics


def tensors(step: int, size: int = 3) -> dict[str, dict[str, torch.Tensor]]:
    return {"weights": {"a.b": torch.full((size,), float(step))}, "optimizer": {"a.b.step": torch.tensor(step)}}


def silent(text: str) -> None:
    raise AssertionError(f"an unexpected warning: {text}")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes: the kernel then refuses in the middle of one, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 7, tensors(7), {"note": "x"}, keep=2)
    found = latest_checkpoint(tmp_path, silent)
    assert found is not None and found.step == 7 and found.state["note"] == "x"
    assert torch.equal(found.tensors("weights")["a.b"], torch.full((3,), 7.0))
    assert found.tensors("optimizer")["a.b.step"].item() == 7


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path, silent) is None
    assert latest_checkpoint(tmp_path / "nowhere", silent) is None


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_latest_are_kept_and_the_best_besides(tmp_path: Path, keep: int) -> None:
    save_best(tmp_path, tensors(1)["weights"], 1, 0.5)
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, step, tensors(step), {}, keep=keep)
    assert saved_steps(tmp_path) == [1, 2, 3, 10][-keep:]
    best = read_best(tmp_path)
    assert best is not None and best.step == 1 and best.weights["a.b"][0] == 1.0 and best.objective == 0.5
    assert not (tmp_path / "tmp").exists(), "nothing temporary stays"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, tensors(1), {}, keep=2)
    half = tmp_path / "tmp" / "new.host.1.0" / "step_00000002"
    half.mkdir(parents=True)
    (half / "weights.safetensors").write_bytes(b"half")
    found = latest_checkpoint(tmp_path, silent)
    assert found is not None and found.step == 1
    assert not (tmp_path / "tmp").exists()


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def flip_a_bit_inside(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.find(b'"step": 2') + len('"step": ') if path.suffix == ".json" else len(content) // 2
    content[place] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", [shorten, flip_last_byte, flip_a_bit_inside, Path.unlink])
def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_used(tmp_path: Path, file: str, damage) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, tensors(step), {}, keep=2)
    damage(tmp_path / "step_00000002" / file)
    warnings: list[str] = []
    found = latest_checkpoint(tmp_path, warnings.append)
    assert found is not None and found.step == 1
    assert len(warnings) == 1 and file in warnings[0] and "damaged_step_00000002" in warnings[0]
    assert (tmp_path / "damaged_step_00000002").is_dir(), "kept for whoever wants to look"
    save_checkpoint(tmp_path, 2, tensors(2), {}, keep=2)  # the step is made again
    assert saved_steps(tmp_path) == [1, 2]


def test_if_all_checkpoints_are_damaged_the_run_does_not_start_again_by_itself(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, tensors(1), {}, keep=2)
    shorten(tmp_path / "step_00000001" / "weights.safetensors")
    with pytest.raises(DatasetError, match=r"no checkpoint .* is intact .*weights\.safetensors"):
        latest_checkpoint(tmp_path, lambda text: None)
    with pytest.raises(DatasetError, match=r"no checkpoint .* is intact .*damaged_step_00000001 was set aside"):
        latest_checkpoint(tmp_path, silent)


def test_a_file_damaged_after_it_was_checked_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, tensors(1), {}, keep=2)
    found = latest_checkpoint(tmp_path, silent)
    assert found is not None
    for damage in (shorten, Path.unlink):
        damage(found.path / "weights.safetensors")
        with pytest.raises(DatasetError, match=r"step_00000001/weights\.safetensors cannot be read"):
            found.tensors("weights")


def test_a_full_disk_is_an_environment_problem_and_older_checkpoints_stay(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, tensors(1), {}, keep=1)
    save_best(tmp_path, tensors(1)["weights"], 1, 0.5)
    with largest_file(50_000):
        with pytest.raises(EnvironmentProblem, match=r"a checkpoint cannot be written to .*step_00000002"):
            save_checkpoint(tmp_path, 2, tensors(2, size=100_000), {}, keep=1)
        with pytest.raises(EnvironmentProblem, match="best"):
            save_best(tmp_path, tensors(2, size=100_000)["weights"], 2, 0.1)
    found, best = latest_checkpoint(tmp_path, silent), read_best(tmp_path)
    assert found is not None and found.step == 1
    assert best is not None and best.step == 1
    assert not list(tmp_path.rglob("*00002*"))


def test_a_damaged_best_is_an_error_with_its_name(tmp_path: Path) -> None:
    assert read_best(tmp_path) is None
    save_best(tmp_path, tensors(1)["weights"], 1, 0.5)
    shorten(tmp_path / "best" / "weights.safetensors")
    with pytest.raises(DatasetError, match=r"best/weights\.safetensors is damaged"):
        read_best(tmp_path)


def write_lines(out: Path, steps: int) -> None:
    with MetricsWriter(out, 0, tensorboard=False, warn=silent) as writer:
        for step in range(1, steps + 1):
            writer.write(step, "train", {"objective": step / 3})
            writer.write(step, "validation", {"objective": None})


def test_lines_beyond_the_checkpoint_are_cut_so_that_each_step_occurs_once(tmp_path: Path) -> None:
    write_lines(tmp_path, 5)
    with MetricsWriter(tmp_path, 3, tensorboard=False, warn=silent) as writer:
        writer.write(4, "train", {"objective": 1.0})
    assert [(line["step"], line["objective"]) for line in read_metrics(tmp_path)] == [
        (1, 1 / 3), (2, 2 / 3), (3, 1.0), (4, 1.0),
    ]  # fmt: skip
    assert [line["step"] for line in read_metrics(tmp_path, "validation")] == [1, 2, 3]


def test_a_half_written_last_line_is_cut_and_more_damage_is_told(tmp_path: Path) -> None:
    write_lines(tmp_path, 2)
    file = tmp_path / FILE
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"step": 3, "spl')
    with MetricsWriter(tmp_path, 9, tensorboard=False, warn=silent):
        assert file.read_bytes() == whole
    file.write_bytes(whole + b"\0\0\0\n\0\0\n")  # what a power cut can leave
    warnings: list[str] = []
    with MetricsWriter(tmp_path, 9, tensorboard=False, warn=warnings.append):
        assert file.read_bytes() == whole
    assert len(warnings) == 1 and "2 lines" in warnings[0]


def test_a_full_disk_says_so_once_and_earlier_lines_stay(tmp_path: Path) -> None:
    write_lines(tmp_path, 2)
    size = (tmp_path / FILE).stat().st_size
    with (
        largest_file(size + 10),
        pytest.raises(EnvironmentProblem, match="a line of metrics"),
        MetricsWriter(tmp_path, 2, tensorboard=False, warn=silent) as writer,
    ):
        writer.write(3, "train", {"objective": 1.0})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]


def test_only_the_enabled_writer_writes(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, 0, tensorboard=True, warn=silent, enabled=False) as writer:
        writer.write(1, "train", {"objective": 1.0})
        writer.sync()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsWriter(tmp_path, 0, tensorboard=True, warn=silent) as writer:
        writer.write(3, "train", {"objective": 0.25, "grad_norm_camera": None})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/objective")] == [(3, 0.25)]
    assert events.Tags()["scalars"] == ["train/objective"]


def test_an_interval_of_a_checkpoint_continues_exactly() -> None:
    values = [0.1, 0.2, 0.3, 0.7]
    whole, first = Interval(), Interval()
    for value in values:
        whole.add({"objective": value})
    for value in values[:2]:
        first.add({"objective": value})
    second = Interval(**json.loads(json.dumps(vars(first))))
    for value in values[2:]:
        second.add({"objective": value})
    assert vars(second) == vars(whole)
