"""Every mode trains what it says and nothing else, from a recorded seed, and the model starts as the base model."""

from __future__ import annotations

import hashlib

import pytest
import torch
from adapter_models import (
    ADAPTER_MODES,
    MODES,
    adapted_model,
    images,
    objective,
    optimiser,
    outputs,
    small_model,
    train,
)
from torch import Tensor, nn

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.adapters import adapt
from megasynth_train.adapters.parts import groups
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.config import KEPT


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("mode", MODES)
def test_training_moves_the_trained_parameters_and_no_others(mode: str) -> None:
    adapted = adapted_model(mode)
    frozen = {name: digest(t) for name, t in adapted.model.state_dict().items() if name not in adapted.trainable}
    start = {name: p.detach().clone() for name, p in adapted.trainable.items()}
    values = train(adapted, 4, using=optimiser(adapted, rate=1e-3))
    assert len(set(values)) == 4 and values[-1] < values[0]
    assert {name: digest(t) for name, t in adapted.model.state_dict().items() if name in frozen} == frozen
    assert not any(name.startswith("aggregator.patch_embed") for name in adapted.trainable)
    assert [name for name, p in adapted.trainable.items() if torch.equal(p, start[name])] == []


@pytest.mark.parametrize("mode", ADAPTER_MODES)
def test_an_untrained_adapter_leaves_the_predictions_alone(mode: str) -> None:
    expected, found = outputs(small_model()), outputs(adapted_model(mode).model)
    for name in expected:  # PiSSA splits the weights and DoRA divides by norms, which round
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_every_trained_parameter_gets_a_gradient_and_belongs_to_one_group(mode: str) -> None:
    adapted = adapted_model(mode)
    train(adapted, 1)  # from the second step on lora_B is not 0, so lora_A moves too
    adapted.model.zero_grad(set_to_none=True)
    objective(adapted.model(images())).backward()
    assert [name for name, p in adapted.trainable.items() if p.grad is None] == []
    grouped = [id(p) for members in adapted.groups.values() for p in members]
    assert sorted(grouped) == sorted(id(p) for p in adapted.trainable.values())
    assert set(adapted.groups) == ({"camera", "depth"} if mode == "heads" else {"aggregator", "camera", "depth"})
    assert sum(row.parameters for row in adapted.parameter_table()) == adapted.parameter_count()


@pytest.mark.parametrize("mode", MODES)
def test_bf16_autocast_and_recomputed_blocks_leave_float32_gradients(mode: str) -> None:
    """How a large GPU runs it: adapters stay in float32, and recomputing the blocks changes nothing."""
    gradients = []
    for kept in KEPT:
        adapted = adapted_model(mode)
        train(adapted, 1)
        adapted.model.zero_grad(set_to_none=True)
        adapted.model.kept = kept
        with torch.autocast("cpu", torch.bfloat16):
            prediction = adapted.model(images())
        objective(prediction).backward()
        gradients.append({name: p.grad for name, p in adapted.trainable.items()})
    for name, first in gradients[0].items():
        assert first is not None and first.dtype == torch.float32
        for others in gradients[1:]:
            torch.testing.assert_close(others[name], first, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "alpha", "aggregator", "heads"),
    [
        ("lora", 0.0, 2.0, 2.0),  # twice the rank, whatever the rank
        ("lora", 6.0, 6 / 4, 6 / 3),
        ("rslora", 0.0, 8 / 4**0.5, 6 / 3**0.5),
        ("pissa", 0.0, 2.0, 2.0),
        ("adalora", 0.0, 2.0, 2.0),
        ("adalora", 6.0, 6 / 4, 6 / 3),
    ],
)
def test_scales_and_ranks_of_aggregator_and_heads(mode: str, alpha: float, aggregator: float, heads: float) -> None:
    """By the update itself: with B = E = 1 everywhere it is scale × the column sums of A in every row."""
    adapted = adapted_model(mode, alpha=alpha)
    assert adapted.settings.rank == 4 and adapted.settings.head_rank == 3
    other = "heads" if len(adapted.wrapped) == 2 else "default"
    for module, name, rank, scale in [
        ("aggregator.frame_blocks.1.mlp.fc1", "default", 6 if mode == "adalora" else 4, aggregator),
        ("camera_head.trunk.0.attn.qkv", other, 3, heads),
    ]:
        layer = adapted.model.get_submodule(module)
        factors = [getattr(layer, f"lora_{kind}")[name] for kind in ("A", "B")]
        down, up = (factor if isinstance(factor, nn.Parameter) else factor.weight for factor in factors)
        assert len(down) == rank
        with torch.no_grad():
            up.fill_(1.0)
            if hasattr(layer, "lora_E"):
                layer.lora_E[name].fill_(1.0)
            expected = scale * down.sum(dim=0).expand(len(up), -1)
            torch.testing.assert_close(layer.get_delta_weight(name), expected, rtol=1e-4, atol=1e-5)


def test_a_parameter_outside_all_groups_is_an_error() -> None:
    with pytest.raises(ValueError, match="elsewhere"):
        groups({"elsewhere.weight": nn.Parameter(torch.zeros(1))})


def test_the_encoder_is_trained_only_when_asked_for() -> None:
    adapted = adapted_model("full", train_encoder=True)
    assert any(name.startswith("aggregator.patch_embed") for name in adapted.trainable)
    assert "aggregator.patch_embed.mask_token" not in adapted.trainable
    train(adapted, 1)
    adapted.model.zero_grad(set_to_none=True)
    objective(adapted.model(images())).backward()
    assert [name for name, p in adapted.trainable.items() if p.grad is None] == []
    with pytest.raises(ConfigError, match="train_encoder"):
        adapted_model("lora", train_encoder=True)


def test_full_leaves_a_point_head_alone() -> None:
    adapted = adapt(small_model(point_head=True), AdapterSettings(mode="full"), total_steps=1)
    assert not any(name.startswith("point_head") for name in adapted.trainable)


@pytest.mark.parametrize("mode", ["lora", "adalora", "pissa"])
def test_the_seed_alone_decides_the_initial_values_and_the_global_state_is_kept(mode: str) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = adapted_model(mode)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    again, other = adapted_model(mode), adapted_model(mode, seed=6)
    assert first.seed == 5 and other.seed == 6
    assert all(torch.equal(p, again.trainable[name]) for name, p in first.trainable.items())
    assert all(torch.equal(t, again.initial[name]) for name, t in first.initial.items())
    drawn = [name for name in first.trainable if ".lora_A." in name and (mode != "pissa" or ".heads." in name)]
    assert drawn and not any(torch.equal(first.trainable[name], other.trainable[name]) for name in drawn)


def test_an_adapted_model_is_not_adapted_twice() -> None:
    with pytest.raises(ConfigError, match="adapters already"):
        adapt(adapted_model("lora").model, AdapterSettings(), total_steps=1)


def test_only_lora_xs_asks_for_no_weight_decay() -> None:
    xs = adapted_model("lora_xs")
    assert xs.undecayed == {name for name in xs.trainable if name.startswith("aggregator.")}
    assert all(torch.equal(xs.trainable[name], torch.eye(4)) for name in xs.undecayed)
    assert adapted_model("lora").undecayed == frozenset()


@pytest.mark.parametrize("mode", ["full", "lora", "dora", "pissa", "adalora", "lora_xs", "subspace"])
def test_a_run_continued_from_trainable_and_extra_state_is_the_uninterrupted_one(mode: str) -> None:
    half = 4 if mode == "adalora" else 2  # enough for cuts before and after
    whole, begun, resumed = (adapted_model(mode, total_steps=2 * half) for _ in range(3))
    train(whole, 2 * half)
    optim = optimiser(begun)
    train(begun, half, using=optim)
    extra = {name: t.clone() for name, t in begun.extra_state().items()}
    with torch.no_grad():
        for name, parameter in resumed.trainable.items():
            parameter.copy_(begun.trainable[name])
    resumed.load_extra_state(extra)
    continued = optimiser(resumed)
    continued.load_state_dict(optim.state_dict())
    train(resumed, half, first=half, using=continued)
    assert [name for name, p in whole.trainable.items() if not torch.equal(p, resumed.trainable[name])] == []
    assert whole.ranks() == resumed.ranks()


def test_state_of_another_method_is_refused() -> None:
    adalora, xs, lora = (adapted_model(mode) for mode in ("adalora", "lora_xs", "lora"))
    assert lora.extra_state() == {}
    for adapted, state in [(adalora, {}), (lora, adalora.extra_state()), (xs, {}), (lora, xs.extra_state())]:
        with pytest.raises(DatasetError, match="another run"):
            adapted.load_extra_state(state)
    train(adalora, 1)
    state = adalora.extra_state()
    name = next(key for key in state if ".ipt." in key)
    with pytest.raises(DatasetError, match="does not belong to this model"):
        adapted_model("adalora").load_extra_state(state | {name: state[name][:1]})
