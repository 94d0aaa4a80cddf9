"""The loop against hand-made steps: order, schedule, clipping, AdamW, skipping of non-finite steps, metrics."""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs as runs
from accelerate import Accelerator
from torch import Tensor, nn

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem
from megasynth_attr.core.stop import StopRequest
from megasynth_train.adapters import adapt, save_adapter
from megasynth_train.data.device import prepare
from megasynth_train.data.loader import StepLoader
from megasynth_train.data.plan import Sampling
from megasynth_train.data.sources import open_sources
from megasynth_train.finetune import settings_identity
from megasynth_train.training.base_model import base_model
from megasynth_train.training.loop import Run, train
from megasynth_train.training.losses import losses
from megasynth_train.training.metrics import read_metrics
from megasynth_train.training.optimiser import (
    build_optimiser,
    clip_by_group,
    learning_rate,
    load_moments,
    moments,
    step_unless,
)
from megasynth_train.training.processes import make_accelerator
from megasynth_train.training.settings import OptimSettings, TrainSettings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_training_dataset(tmp_path_factory.mktemp("data"))


class NumpyAdamW:
    """AdamW with decoupled weight decay in float64, from its paper (Loshchilov and Hutter 2019, algorithm 2)."""

    def __init__(self, settings: OptimSettings) -> None:
        self.s, self.t = settings, 0
        self.m: dict[str, np.ndarray] = {}
        self.v: dict[str, np.ndarray] = {}

    def step(self, weights: dict[str, np.ndarray], gradients: dict[str, np.ndarray], rate: float) -> None:
        self.t += 1
        for name, gradient in gradients.items():
            m = self.m[name] = self.s.beta1 * self.m.get(name, 0.0) + (1 - self.s.beta1) * gradient
            v = self.v[name] = self.s.beta2 * self.v.get(name, 0.0) + (1 - self.s.beta2) * gradient**2
            m_hat, v_hat = m / (1 - self.s.beta1**self.t), v / (1 - self.s.beta2**self.t)
            weights[name] -= rate * (m_hat / (np.sqrt(v_hat) + self.s.eps) + self.s.weight_decay * weights[name])


def numpy_clip(gradients: dict[str, np.ndarray], groups: dict[str, list[str]], limit: float) -> dict[str, float]:
    norms = {}
    for group, names in groups.items():
        norms[group] = math.sqrt(sum(float((gradients[name] ** 2).sum()) for name in names))
        for name in names:
            gradients[name] = gradients[name] * min(1.0, limit / (norms[group] + 1e-6))
    return norms


def parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return {name: nn.Parameter(torch.randn(4, 3, generator=generator)) for name in ("a", "b", "never_used")}


# ---- optimiser


def test_adamw_is_the_papers_and_a_skipped_step_leaves_no_trace() -> None:
    settings = OptimSettings(weight_decay=0.1, beta1=0.8, beta2=0.95, eps=1e-6)
    trainable, oracle = parameters(), NumpyAdamW(settings)
    expected = {name: p.detach().double().numpy() for name, p in trainable.items()}
    optimiser = build_optimiser(trainable, settings)
    generator = torch.Generator().manual_seed(2)
    for k, rate in enumerate([0.1, 0.02, 0.3, 0.05, 0.1]):
        bad = k in (0, 2)  # also before there are moments
        for group in optimiser.param_groups:
            group["lr"] = rate
        for name in ("a", "b"):
            trainable[name].grad = torch.randn(4, 3, generator=generator)
        gradients = {name: trainable[name].grad.double().numpy() for name in ("a", "b")}
        if bad:
            trainable["a"].grad[0, 0] = math.nan
        else:
            oracle.step(expected, gradients, rate)
        step_unless(optimiser, torch.tensor(float(bad)))
        for name, parameter in trainable.items():
            np.testing.assert_allclose(parameter.detach().numpy(), expected[name], rtol=2e-5, atol=1e-6)
    saved = moments(optimiser, trainable)
    assert {key.partition(".")[0] for key in saved} == {"a", "b"}, "what never had a gradient has no moments"
    assert saved["a.step"].item() == 3.0
    np.testing.assert_allclose(saved["a.exp_avg_sq"].numpy(), oracle.v["a"], rtol=1e-5)


def test_moments_continue_in_another_optimiser_and_only_in_one_of_the_same_parameters() -> None:
    first, second = parameters(), parameters()
    one, two = build_optimiser(first, OptimSettings()), build_optimiser(second, OptimSettings())
    first["a"].grad = torch.ones(4, 3)
    step_unless(one, torch.tensor(0.0))
    second["a"].data.copy_(first["a"].data)
    load_moments(two, second, {name: tensor.clone() for name, tensor in moments(one, first).items()})
    for optimiser, group in ((one, first), (two, second)):
        group["a"].grad = torch.full((4, 3), 0.5)
        step_unless(optimiser, torch.tensor(0.0))
    assert torch.equal(first["a"], second["a"])
    with pytest.raises(Exception, match="c"):
        load_moments(two, second, {"c.exp_avg": torch.ones(1)})
    with pytest.raises(Exception, match="of b do not fit"):
        load_moments(two, second, {"b.exp_avg": torch.ones(4, 3)})


def test_weight_decay_spares_what_is_named() -> None:
    trainable = parameters()
    before = {name: p.detach().clone() for name, p in trainable.items()}
    settings = OptimSettings(lr_start=0.1, weight_decay=0.5)
    optimiser = build_optimiser(trainable, settings, undecayed={"b"})
    for parameter in trainable.values():
        parameter.grad = torch.zeros(4, 3)
    step_unless(optimiser, torch.tensor(0.0))
    assert torch.equal(trainable["b"], before["b"])
    torch.testing.assert_close(trainable["a"].detach(), before["a"] * (1 - 0.1 * 0.5))


def test_nothing_to_train_is_said() -> None:
    with pytest.raises(ConfigError, match="nothing would be trained"):
        build_optimiser({}, OptimSettings())


@pytest.mark.parametrize("limit", [0.5, 100.0, 0.0])
def test_each_group_is_clipped_by_its_own_norm(limit: float) -> None:
    trainable = parameters()
    trainable["a"].grad, trainable["b"].grad = torch.full((4, 3), 2.0), torch.full((4, 3), 0.01)
    gradients = {name: trainable[name].grad.double().numpy().copy() for name in ("a", "b")}
    expected = numpy_clip(gradients, {"large": ["a"], "small": ["b"]}, limit or math.inf)
    groups = {"large": [trainable["a"], trainable["never_used"]], "small": [trainable["b"]], "none": []}
    norms = clip_by_group(groups, limit)
    assert norms.keys() == {"large", "small"}
    for group, norm in norms.items():
        assert norm.item() == pytest.approx(expected[group], rel=1e-6)
    for name in ("a", "b"):
        np.testing.assert_allclose(trainable[name].grad.numpy(), gradients[name], rtol=1e-6)


# ---- the loop's step


def make_run(data: Path, out: Path, *words: str) -> Run:
    settings: TrainSettings = runs.settings_of(data, out, *words)
    torch.set_num_threads(1)
    accelerator: Accelerator = make_accelerator("cpu")
    adapted = adapt(base_model(settings.model, []), settings.adapter, total_steps=settings.optim.steps)
    identity = settings_identity(settings, accelerator)
    return Run(adapted, open_sources(settings.data), settings, accelerator, out, identity)


def snapshot(run: Run) -> dict[str, Tensor]:
    weights = {name: p.detach().clone() for name, p in run.adapted.trainable.items()}
    return weights | {name: t.clone() for name, t in moments(run.optimiser, run.adapted.trainable).items()}


def test_three_steps_are_those_made_by_hand(data: Path, tmp_path: Path) -> None:
    """Forward, losses and autograd as they are; clipping, schedule and AdamW in NumPy, in the order specified."""
    words = ("steps=3", "lr=3e-3", "optim.lr_start=1e-3", "optim.warmup=0.5", "optim.clip=0.2", "run.validate_every=0")
    run, other = make_run(data, tmp_path / "a", *words), make_run(data, tmp_path / "b", *words)
    settings, by_hand = other.settings, other.adapted
    groups = {
        group: [name for name, p in by_hand.trainable.items() if any(p is q for q in members)]
        for group, members in by_hand.groups.items()
    }
    weights = {name: p.detach().double().numpy().copy() for name, p in by_hand.trainable.items()}
    oracle = NumpyAdamW(settings.optim)
    batches = list(StepLoader(Sampling(other.data.train, settings.data, settings.run.seed), range(3)))
    for k, raw in enumerate(batches):
        target = prepare(raw, "cpu", settings.data)
        terms = losses(by_hand.model(target.images), target, settings.loss)
        found = torch.autograd.grad(terms.objective, list(by_hand.trainable.values()))
        gradients = {n: g.double().numpy() for n, g in zip(by_hand.trainable, found, strict=True)}
        norms = numpy_clip(gradients, groups, 0.2)
        oracle.step(weights, gradients, learning_rate(k / 2, settings.optim))
        run.step(raw)
        for name, parameter in by_hand.trainable.items():
            parameter.data.copy_(torch.from_numpy(weights[name]))
        run.reports.read()
        line = run.reports.line()
        assert line["objective"] == pytest.approx(terms.objective.item(), rel=1e-4)
        assert line["lr"] == pytest.approx([1e-3, 3e-3, 1e-8][k], rel=1e-6)
        for group, norm in norms.items():
            assert line[f"grad_norm_{group}"] == pytest.approx(norm, rel=1e-2)
    assert max(norms.values()) > 0.2, "else clipping was not tested"
    # AdamW divides by |gradient|: where that is rounding, so is the update, and no tolerance can tell. Hence shares.
    for name, parameter in run.adapted.trainable.items():
        close = np.isclose(parameter.detach().numpy(), weights[name], rtol=1e-3, atol=2e-4)
        assert close.mean() > 0.97, f"{name}: {close.mean()}"


def poison(run: Run) -> list[bool]:
    """Make the depth head's gradient non-finite in steps in which the returned list holds True."""
    switch = [False]

    def spoil(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * math.nan if switch[0] else output

    run.adapted.model.depth_head.register_forward_hook(spoil)
    return switch


def test_a_non_finite_step_changes_nothing_and_is_counted(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path, "steps=9", "optim.max_bad_steps=1", "run.validate_every=0")
    switch = poison(run)
    batches = list(run.batches(0, 9, training=True))
    for k, raw in enumerate(batches):
        switch[0] = k in (0, 3, 5, 8)  # never two in a row
        before = snapshot(run)
        run.step(raw)
        run.reports.read()
        after = snapshot(run)
        unchanged = all(torch.equal(after[name], before.get(name, torch.zeros_like(after[name]))) for name in after)
        assert unchanged == switch[0]
        assert all(torch.isfinite(value).all() for value in after.values())
    assert run.position.step == 9, "a skipped step is a step: data and schedule go on"
    line = run.reports.line()
    assert line["skipped_steps"] == 4
    assert math.isfinite(line["objective"]), "skipped steps are not averaged"


def test_too_many_in_a_row_stop_with_what_and_where(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path, "steps=9", "optim.max_bad_steps=2", "run.validate_every=0")
    poison(run)[0] = True
    batches = list(run.batches(0, 3, training=True))
    for raw in batches[:2]:
        run.step(raw)
        run.reports.read()
    run.step(batches[2])
    with pytest.raises(ConfigError) as error:
        run.reports.read()
    message = str(error.value)
    assert "3 steps in a row" in message and "step 3" in message and "max_bad_steps" in message
    assert "depth_confidence" in message and "grad_norm_depth" in message and "camera," not in message
    assert all(name in message for name in batches[2].names)


def test_an_exploding_run_stops_and_keeps_its_checkpoints(data: Path, tmp_path: Path) -> None:
    words = ("steps=30", "optim.warmup=0.3", "optim.max_bad_steps=3", "run.checkpoint_every=1", "mode=full")
    with pytest.raises(ConfigError, match="4 steps in a row were not finite"):
        runs.train_here(data, tmp_path, "lr=1e30", *words)
    assert len(list((tmp_path / "checkpoints").glob("step_*/state.json"))) == 2
    assert not (tmp_path / "done.json").exists()


def poison_steps(run: Run, bad: set[int]) -> None:
    switch = poison(run)
    run.adapted.model.register_forward_pre_hook(lambda module, inputs: switch.__setitem__(0, run.position.step in bad))


@pytest.mark.parametrize("bad", [{2, 3}, {0, 1, 2}], ids=["the last steps", "most steps"])
def test_a_diverged_run_is_no_success_and_keeps_its_checkpoint(data: Path, tmp_path: Path, bad: set[int]) -> None:
    words = ("steps=4", "run.validate_every=0", "run.checkpoint_every=0")
    run = make_run(data, tmp_path, *words)
    poison_steps(run, bad)
    with pytest.raises(ConfigError, match=rf"diverged: {len(bad)} of 4 steps .*Lower optim\.lr"):
        train(run, StopRequest())
    again = make_run(data, tmp_path, *words)
    assert again.position.step == 4, "the checkpoint is kept"
    with pytest.raises(ConfigError, match="diverged"):  # and no second call makes a success of it
        train(again, StopRequest())


def test_a_run_that_skipped_a_few_steps_is_done(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path, "steps=4", "run.validate_every=0")
    poison_steps(run, {0, 2})
    assert train(run, StopRequest()).skipped_steps == 2


def test_a_loader_process_killed_during_the_forward_pass_is_an_environment_problem(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path, "steps=50", "workers=1", "run.validate_every=0")

    def kill_the_worker(module: nn.Module, inputs: object) -> None:
        for worker in multiprocessing.active_children():
            worker.kill()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # torch's handler of SIGCHLD raises here
            time.sleep(0.01)

    run.adapted.model.register_forward_pre_hook(kill_the_worker)
    with pytest.raises(EnvironmentProblem, match=r"a loader process died .*data\.workers=0"):
        train(run, StopRequest())


def test_another_error_in_the_loop_is_not_taken_for_a_dead_worker(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path, "steps=2")
    run.adapted.model.register_forward_pre_hook(lambda module, inputs: torch.zeros(2).reshape(3))
    with pytest.raises(RuntimeError, match="shape"):
        train(run, StopRequest())


def test_a_result_with_weights_that_are_not_finite_can_be_saved(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path / "run", "steps=2")
    name = next(name for name in run.adapted.trainable if ".lora_A." in name)
    with torch.no_grad():
        run.adapted.trainable[name].view(-1)[0] = math.inf
    save_adapter(run.adapted, tmp_path / "adapter", {})
    record = json.loads((tmp_path / "adapter" / "drift.json").read_text())
    spoilt = [layer for layer in record["layers"] if layer["relative_change"] is None]
    assert len(spoilt) == 1 and spoilt[0]["module"] in name and set(spoilt[0]["angles_deg"]) == {None}
    assert record["summary"]["default"]["max_relative_change"] is None


def test_lora_xs_matrices_start_at_the_identity_and_are_not_decayed(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path, "mode=lora_xs", "adapter.rank=4", "optim.weight_decay=0.3")
    decay = {id(p): group["weight_decay"] for group in run.optimiser.param_groups for p in group["params"]}
    found = {name: decay[id(p)] for name, p in run.adapted.trainable.items()}
    assert {value for name, value in found.items() if ".psoft_R." in name} == {0.0}
    assert {value for name, value in found.items() if ".lora_A." in name} == {0.3}


# ---- metrics and validation of whole runs


def test_lines_are_means_over_their_interval_and_the_schedule_is_used_from_first_to_last_step(
    data: Path, tmp_path: Path
) -> None:
    words = ("steps=8", "optim.lr_start=1e-7", "optim.lr_end=1e-6", "optim.warmup=0.25", "run.validate_every=0")
    runs.train_here(data, tmp_path / "each", "run.log_every=1", *words)
    runs.train_here(data, tmp_path / "five", "run.log_every=5", *words)
    each, five = read_metrics(tmp_path / "each"), read_metrics(tmp_path / "five")
    assert [line["step"] for line in each] == list(range(1, 9))
    assert [line["step"] for line in five] == [5, 8]
    for key in ("objective", "camera", "grad_norm_depth", "lr"):
        assert five[0][key] == pytest.approx(np.mean([line[key] for line in each[:5]]), rel=1e-12)
        assert five[1][key] == pytest.approx(np.mean([line[key] for line in each[5:]]), rel=1e-12)
    assert each[0]["lr"] == 1e-7 and each[-1]["lr"] == pytest.approx(1e-6, rel=1e-9)
    expected = [learning_rate(k / 7, runs.settings_of(data, tmp_path, *words).optim) for k in range(8)]
    assert [line["lr"] for line in each] == expected
    assert {"images_per_s", "seconds", "skipped_steps", "bad_files"} <= each[0].keys()


def test_validation_uses_the_same_batches_each_time_and_the_best_weights_are_kept(data: Path, tmp_path: Path) -> None:
    # the rate is 0 from the start, then validation can only repeat itself, and the first is the best
    words = ("steps=6", "lr=0", "optim.lr_start=0", "optim.lr_end=0", "run.validate_every=2", "run.validation_steps=2")
    result = runs.train_here(data, tmp_path, *words)
    lines = read_metrics(tmp_path, "validation")
    assert [line["step"] for line in lines] == [0, 2, 4, 6]  # 0: the base model, which is never the best
    assert len({line["objective"] for line in lines}) == 1
    assert result.best_step == 2 and result.best_objective == lines[0]["objective"]
    assert result.best == tmp_path.resolve() / "best" and (result.best / "adapter.json").is_file()


def test_a_validation_that_is_not_finite_is_null_and_never_the_best(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path, "steps=2")
    switch = poison(run)
    switch[0] = True
    assert run.validate()["objective"] is None and run.position.best_step is None
    switch[0] = False
    assert run.validate()["objective"] == run.position.best_objective is not None


def test_scenes_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    data = runs.write_training_dataset(tmp_path / "data")
    settings = runs.settings_of(data, tmp_path / "run")
    victim = open_sources(settings.data).train[0].folder
    for picture in (victim / "rgb").iterdir():
        picture.write_bytes(b"no picture")
    words = ("steps=6", "data.on_bad_file=skip", "data.max_bad_share=0.9", "run.validate_every=0")
    result = runs.train_here(data, tmp_path / "run", *words)
    assert result.bad_files > 0
    counts = [line["bad_files"] for line in read_metrics(tmp_path / "run")]
    assert counts == sorted(counts) and counts[-1] == result.bad_files
    with pytest.raises(Exception, match="rgb"):
        runs.train_here(data, tmp_path / "stop", *words, "data.on_bad_file=stop")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_step_never_waits_for_the_gpu(data: Path, tmp_path: Path) -> None:
    settings = runs.settings_of(data, tmp_path, "device=cuda", "steps=9")
    accelerator = make_accelerator("cuda")
    adapted = adapt(base_model(settings.model, []), settings.adapter, total_steps=9)
    run = Run(adapted, open_sources(settings.data), settings, accelerator, tmp_path, {})
    batches = list(run.batches(0, 6, training=True))
    for raw in batches[:3]:  # the first steps build caches
        run.step(raw)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for raw in batches[3:]:
            run.step(raw)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    run.reports.read()
    assert run.position.skipped_steps == 0
