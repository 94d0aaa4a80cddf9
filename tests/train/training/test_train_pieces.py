"""A step in pieces is the same step; out of memory makes the pieces smaller; memory=auto chooses them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import training_runs as runs
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from losses_oracle import Answer
from test_train_loop import make_run, snapshot
from test_train_losses import random_case
from torch import Tensor, nn

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem
from megasynth_attr.core.stop import StopRequest
from megasynth_train import finetune
from megasynth_train.cost.cards import card_table, words
from megasynth_train.cost.memory import GIB
from megasynth_train.data.device import prepare
from megasynth_train.finetune import main, settings_identity
from megasynth_train.training import loop, memory
from megasynth_train.training.loop import Run, train
from megasynth_train.training.losses import count, filtered_mean, losses
from megasynth_train.training.metrics import read_metrics
from megasynth_train.training.normalisation import Target
from megasynth_train.training.pieces import join, split
from megasynth_train.training.processes import make_accelerator
from megasynth_train.training.settings import LossSettings, ModelSettings, TrainSettings

EXACT = ("camera", "translation", "rotation", "fov", "depth_gradient")  # whatever the quantile


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_training_dataset(tmp_path_factory.mktemp("data"))


@contextmanager
def computing_in_float64() -> Iterator[None]:
    """Let everything that computes in float32 compute in float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def in_float64(target: Target) -> Target:
    values = {field.name: getattr(target, field.name) for field in fields(Target)}
    return Target(**{name: v.double() if v.is_floating_point() else v for name, v in values.items()})


def leaves(answer: Answer, scenes: slice = slice(None)) -> Answer:
    def leaf(values: Tensor | None) -> Tensor:
        assert values is not None
        return values.detach()[scenes].double().requires_grad_()

    return Answer(tuple(map(leaf, answer.pose_encodings)), leaf(answer.depth), leaf(answer.depth_confidence))


def gradients(answer: Answer) -> list[Tensor]:
    return [leaf.grad for leaf in (*answer.pose_encodings, answer.depth, answer.depth_confidence)]  # type: ignore[union-attr,misc]


def case(seed: int, valid: float, empty: set[int]) -> tuple[Answer, Target]:
    """Return predictions and targets of 5 scenes, without a valid pixel in those of ``empty``."""
    answer, target = random_case(seed, scenes=5, valid=valid)
    target.masks[list(empty)] = False
    return answer, in_float64(target)


def sums(answer: Answer, target: Target, settings: LossSettings, at_once: int) -> tuple[dict[str, float], list[Tensor]]:
    """Return the terms added over the pieces, and the gradients of the predictions of all scenes."""
    counts, total, found, begin = count(target.masks, settings), {}, [], 0
    for piece in split(target, at_once):
        part = leaves(answer, slice(begin, begin + len(piece.images)))
        terms = losses(part, piece, settings, counts)  # type: ignore[arg-type]
        terms.objective.backward()
        begin += len(piece.images)
        found.append(gradients(part))
        total = {name: total.get(name, 0.0) + value.item() for name, value in terms.items()}
    return total, [torch.cat(parts) for parts in zip(*found, strict=True)]


CASES = given(
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.03, 0.1, 0.9]),
    st.sets(st.integers(0, 4)),
    st.integers(1, 5),
    st.sampled_from(["first_frame", "any_frame"]),
)
examples = hypothesis_settings(max_examples=30, deadline=None, derandomize=True)


@CASES
@examples
def test_without_a_quantile_pieces_add_up_to_the_step(
    seed: int, valid: float, empty: set[int], at_once: int, camera_valid: str
) -> None:
    settings = LossSettings(quantile=1.0, camera_valid=camera_valid)
    answer, target = case(seed, valid, empty)
    with computing_in_float64():
        whole, expected = sums(answer, target, settings, 0)
        parts, found = sums(answer, target, settings, at_once)
    assert parts == pytest.approx(whole, rel=1e-10, abs=1e-13)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@CASES
@examples
def test_with_a_quantile_each_piece_has_its_own(
    seed: int, valid: float, empty: set[int], at_once: int, camera_valid: str
) -> None:
    settings = LossSettings(quantile=0.9, camera_valid=camera_valid)
    answer, target = case(seed, valid, empty)
    with computing_in_float64():
        whole, _ = sums(answer, target, settings, 0)
        parts, found = sums(answer, target, settings, at_once)
    for name in EXACT:
        assert parts[name] == pytest.approx(whole[name], rel=1e-12), name
    assert all(torch.isfinite(gradient).all() for gradient in found)
    pixels, expected, begin = int(target.masks.sum()), 0.0, 0
    for piece in split(target, at_once):
        residual = (piece.depth - answer.depth[begin : begin + len(piece.images)].double()).abs().clamp(max=100)  # type: ignore[index]
        share = int(piece.masks.sum()) / max(1, pixels)
        expected += share * filtered_mean(residual, piece.masks, 0.9).item()
        begin += len(piece.images)
    assert parts["depth_regression"] == pytest.approx(expected if pixels >= 100 else 0.0, rel=1e-6)


def test_pieces_keep_order_and_are_joined_again() -> None:
    _, target = random_case(0, scenes=5)
    assert [len(piece.images) for piece in split(target, 2)] == [2, 2, 1]
    assert [len(piece.images) for piece in split(target, 0)] == [5] == [len(split(target, 9)[0].images)]
    assert torch.equal(torch.cat([piece.depth for piece in split(target, 2)]), target.depth)
    answer, _ = random_case(1, scenes=5)
    parts = [
        loop.Prediction(tuple(p[i : i + 2] for p in answer.pose_encodings), answer.depth[i : i + 2], None)  # type: ignore[index]
        for i in (0, 2, 4)
    ]
    joined = join(parts)
    assert torch.equal(joined.depth, answer.depth) and joined.depth_confidence is None  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(joined.pose_encodings, answer.pose_encodings, strict=True))


@pytest.mark.parametrize(("mode", "at_once"), [("lora", 1), ("adalora", 2)])
def test_a_models_gradients_are_those_of_the_undivided_step(
    data: Path, tmp_path: Path, mode: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(data, tmp_path, "steps=9", f"mode={mode}", "loss.quantile=1", "data.images_per_step=6")
    run.adapted.model.double()
    monkeypatch.setattr(loop, "prepare", lambda *arguments: in_float64(prepare(*arguments)))
    (raw,) = run.batches(0, 1, training=True)
    assert len(raw.names) == 3

    def results(scenes_at_once: int) -> tuple[float, dict[str, float], dict[str, Tensor]]:
        run.scenes_at_once = scenes_at_once
        objective, terms = run._backward(raw)
        found = {name: p.grad.clone() for name, p in run.adapted.trainable.items() if p.grad is not None}
        return objective.item(), {name: value.item() for name, value in terms.items()}, found

    with computing_in_float64():
        whole, pieces = results(0), results(at_once)
    assert pieces[0] == pytest.approx(whole[0], rel=1e-12)
    assert pieces[1] == pytest.approx(whole[1], rel=1e-12) and ("penalty" in whole[1]) == (mode == "adalora")
    assert whole[2].keys() == pieces[2].keys() and len(whole[2]) > 20
    for name, expected in whole[2].items():
        torch.testing.assert_close(pieces[2][name], expected, rtol=1e-8, atol=1e-14)


def test_several_processes_exchange_gradients_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(data, tmp_path, "steps=2", "data.scenes_at_once=1", "data.images_per_step=6")
    alone: list[nn.Module] = []
    monkeypatch.setattr(run.accelerator, "no_sync", lambda model: alone.append(model) or nullcontext())
    (raw,) = run.batches(0, 1, training=True)
    run.step(raw)
    assert len(raw.names) == 3 and len(alone) == 2


def test_validation_is_that_of_undivided_batches(data: Path, tmp_path: Path) -> None:
    whole = make_run(data, tmp_path / "whole", "steps=2").validate()
    assert make_run(data, tmp_path / "pieces", "steps=2", "data.scenes_at_once=1").validate() == pytest.approx(
        whole, rel=1e-5
    )


def limit_memory(run: Run, scenes: int) -> None:
    """Let the model run out of memory with more scenes at once, in the backward pass of training."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        def fail(gradient: Tensor) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        if len(output) <= scenes:
            return None
        if output.requires_grad:
            output.register_hook(fail)
        else:
            fail(output)
        return None

    run.adapted.model.depth_head.register_forward_hook(hook)


def test_out_of_memory_the_step_is_done_in_smaller_pieces(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(data, tmp_path, "steps=2", "data.images_per_step=6", "run.log_every=1", "run.validate_every=2")
    limit_memory(run, scenes=2)
    assert train(run, StopRequest()).skipped_steps == 0
    lines = read_metrics(tmp_path)
    assert [line["scenes_at_once"] for line in lines] == [2, 2] and {line["attention"] for line in lines} == {"sdpa"}
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "memory" in line]
    assert line == (
        "step 0: the GPU ran out of memory with 3 of 3 scenes at once; it is tried again, and the run goes on, with "
        "data.scenes_at_once=2"
    )
    monkeypatch.setattr(memory, "peak_bytes", lambda device: 0.0)
    monkeypatch.setattr(memory, "peak_line", lambda settings, shape, peak: words(settings))
    run.say_peak(next(iter(run.batches(0, 1, training=True))))
    assert capsys.readouterr().err.splitlines() == ["data.scenes_at_once=2"], "what is estimated is the step as it was"


ALLOCATOR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def fail_once(run: Run, call: int, error: Exception, *, training: bool, backward: bool) -> None:
    """Let the model run out of memory at this call of it from here on, counted in training or in validation."""
    calls = 0

    def fail(gradient: Tensor) -> None:
        raise type(error)(*error.args)

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal calls
        calls += module.training == training
        if module.training == training and calls == call:
            output.register_hook(fail) if backward else fail(output)

    run.adapted.model.depth_head.register_forward_hook(hook)


def two_steps(data: Path, out: Path, failing: tuple[Any, ...] | None) -> dict[str, Tensor]:
    """Return all that two steps of a model with dropout leave behind, the second in smaller pieces: because it failed
    at that call with that error, in training or not, backward or not; or, for None, because it was told to."""
    out.mkdir()
    run = make_run(data, out, "steps=2", "mode=adalora", "data.images_per_step=6", "data.scenes_at_once=2")
    run.adapted.model.depth_head.register_forward_hook(
        lambda module, inputs, output: nn.functional.dropout(output, 0.3, module.training)
    )
    first, second = run.batches(0, 2, training=True)
    assert len(first.names) == len(second.names) == 3
    run.step(first)
    if failing is None:
        run.scenes_at_once = 1
    else:
        call, error, training, backward = failing
        fail_once(run, call, error, training=training, backward=backward)
    run.validate(keep_best=False)
    run.step(second)
    run.reports.read()
    assert run.scenes_at_once == 1 and run.position.skipped_steps == 0
    return {**snapshot(run), **run.adapted.extra_state(), "random numbers": torch.get_rng_state()}


def test_nothing_of_a_failed_attempt_remains(data: Path, tmp_path: Path) -> None:
    """To the bit, random numbers too."""
    expected = two_steps(data, tmp_path / "expected", None)
    for place, failing in {
        "validation": (1, ALLOCATOR, False, False),
        "backward": (1, CUBLAS, True, True),
        "second piece": (2, ALLOCATOR, True, False),  # the gradients of the first are there already
    }.items():
        found = two_steps(data, tmp_path / place, failing)
        assert found.keys() == expected.keys(), place
        assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == [], place


def test_blocks_are_computed_again_before_the_run_gives_up(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path, "steps=3")
    limit_memory(run, scenes=0)
    with pytest.raises(EnvironmentProblem, match=r"step 0: .* with 1 of 2 scenes .* computed again: lower data\.views"):
        train(run, StopRequest())
    assert run.scenes_at_once == 1 and run.adapted.model.kept == "nothing"


def test_several_processes_are_told_what_to_do(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path, "steps=3")
    run.accelerator = SimpleNamespace(num_processes=2)  # type: ignore[assignment]
    with pytest.raises(EnvironmentProblem, match=r"several processes .* with data\.scenes_at_once=2$"):
        run._use_less_memory(4)


def test_weights_and_optimiser_that_do_not_fit_are_a_sentence(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No smaller pieces help, and no other dataset of a cluster will fit."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore about it")

    monkeypatch.setattr(loop, "step_unless", full)
    with pytest.raises(EnvironmentProblem, match=r"no room for the model and its optimiser \(CUDA .* MiB\.\): train"):
        runs.train_here(data, tmp_path / "run", "run.validate_every=0")


def test_pieces_belong_to_the_identity_where_they_change_results(tmp_path: Path) -> None:
    key, accelerator = "data.scenes_at_once", make_accelerator("cpu")

    def identity(*words: str) -> dict[str, object]:
        return settings_identity(runs.settings_of(tmp_path, tmp_path, *words), accelerator)

    assert key not in identity()
    assert identity("data.scenes_at_once=2")[key] == 2
    assert key not in identity("data.scenes_at_once=2", "loss.quantile=1")
    assert key not in identity("data.scenes_at_once=2", "loss.depth=0")


# ---- memory=auto


def on_gpu(monkeypatch: pytest.MonkeyPatch, free_gib: float) -> Any:
    """Return the accelerator of a GPU with so much free memory."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: free_gib * GIB)
    return SimpleNamespace(device=torch.device("cuda"))


def test_auto_takes_what_fits_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_accelerator("cpu")
    given = runs.settings_of(tmp_path, tmp_path, "model=vggt-1b", "memory=auto", "data.width_px=518").training()
    given = dataclasses.replace(given, data=dataclasses.replace(given.data, images_per_step=32))
    chosen = memory.fit_to_gpu(given, on_gpu(monkeypatch, 40))
    assert (chosen.data.scenes_at_once, chosen.model.kept) == (5, "everything")
    assert memory.choice_text(chosen).startswith("data.scenes_at_once=5; the largest step, 16 scenes × 2 views, is est")
    # of a run that goes on
    for pieces, free_gib, kept in ((0, 40, "attention"), (2, 40, "everything"), (2, 9, "attention"), (2, 1, "nothing")):
        resumed = memory.fit_to_gpu(given, on_gpu(monkeypatch, free_gib), pieces)
        assert (resumed.data.scenes_at_once, resumed.model.kept) == (pieces, kept)
    off = dataclasses.replace(given, run=dataclasses.replace(given.run, memory="off"))
    assert memory.fit_to_gpu(off, on_gpu(monkeypatch, 1)) == off
    with pytest.raises(EnvironmentProblem, match="one scene of 2 views of 518 × 518 px is estimated to need"):
        memory.fit_to_gpu(given, on_gpu(monkeypatch, 1))


def test_a_run_that_goes_on_keeps_its_pieces(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fits now: they are part of its identity."""
    seen: list[int | None] = []

    def fitted(settings: TrainSettings, accelerator: object, pieces: int | None) -> TrainSettings:
        seen.append(pieces)
        at_once = 1 if pieces is None else pieces
        return dataclasses.replace(settings, data=dataclasses.replace(settings.data, scenes_at_once=at_once))

    monkeypatch.setattr(finetune, "fit_to_gpu", fitted)
    for _ in range(2):
        runs.train_here(data, tmp_path / "run", "memory=auto", "steps=1")
    assert seen == [None, 1]
    with pytest.raises(ConfigError, match=r"data\.scenes_at_once is 1 there and 2 now"):
        monkeypatch.undo()
        runs.train_here(data, tmp_path / "run", "steps=1", "data.scenes_at_once=2")
    runs.train_here(data, tmp_path / "free", "steps=1", "loss.quantile=1", "data.scenes_at_once=1")
    assert runs.train_here(data, tmp_path / "free", "steps=1", "loss.quantile=1").already_done


def test_auto_needs_a_gpu(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"memory=auto needs a CUDA GPU and this run is on cpu; leave it out"):
        runs.train_here(data, tmp_path / "run", "memory=auto")
    assert not (tmp_path / "run").exists()


def test_the_first_steps_peak_is_said_beside_the_estimate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "peak_bytes", lambda device: 0.5 * GIB)
    train(make_run(data, tmp_path, "memory=auto", "steps=3", "run.validate_every=0"), StopRequest())
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "memory" in line]
    assert line.startswith("memory=auto: the first step, 2 scenes × 2 views, took 0.5 GiB at its peak; 0.")
    assert line.endswith(" GiB were estimated")


def test_a_plan_needs_neither_data_nor_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan=true", "model.compile=true"])
    text = capsys.readouterr().out
    assert card_table(TrainSettings(model=ModelSettings(compile=True))) in text
    assert ("PyTorch sees no CUDA GPU here." in text) == (not torch.cuda.is_available())


@pytest.mark.parametrize(("free_gib", "said"), [(40, "the largest step, 8 scenes × 4 views"), (2, "use a larger GPU")])
def test_a_plan_says_what_fits_the_gpu_that_is_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free_gib: float, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(finetune, "free_bytes", lambda device: free_gib * GIB)
    main(["plan=true"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"a card, {free_gib:.1f} GiB free, mode=lora: ") and said in last
