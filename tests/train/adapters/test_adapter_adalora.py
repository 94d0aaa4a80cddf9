"""AdaLoRA's schedule follows the run's length, its penalty is PEFT's, and its budget is kept to."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from adapter_models import adapted_model, images, objective, optimiser, train
from peft import AdaLoraConfig, get_peft_model
from torch import Tensor, nn

from megasynth_train.adapters.adalora import Allocation
from megasynth_train.adapters.methods import adalora_schedule


@pytest.mark.parametrize("total", [1, 2, 3, 5, 10, 97, 1000, 24_000])
def test_the_schedule_is_scaled_to_the_run(total: int) -> None:
    schedule = adalora_schedule(total)
    assert 0 <= schedule["tinit"] < total - schedule["tfinal"]  # what PEFT demands: there is a phase of falling budget
    assert schedule["deltaT"] >= 1
    if total >= 97:
        assert schedule["tinit"] == pytest.approx(0.1 * total, abs=1)
        assert schedule["tfinal"] == pytest.approx(0.3 * total, abs=1)
    if total == 24_000:
        cuts = [s for s in range(schedule["tinit"] + 1, total - schedule["tfinal"]) if s % schedule["deltaT"] == 0]
        assert len(cuts) == pytest.approx(600, abs=1) and cuts[0] > 2_400 and cuts[-1] < 16_800


@dataclass
class Output:
    loss: Tensor


class Toy(nn.Module):
    """A model as PEFT's own AdaLoRA expects it: its output has a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Output:
        return Output(self.second(self.first(x)).square().mean())


def test_the_penalty_is_the_one_peft_adds_to_a_loss() -> None:
    torch.manual_seed(0)
    toy = Toy()
    x = torch.randn(3, 6)
    plain = toy(x).loss
    wrapped = get_peft_model(toy, AdaLoraConfig(init_r=3, target_r=2, target_modules=["first", "second"], total_step=9))
    penalty = Allocation(wrapped.base_model, "default").penalty()
    # PEFT adds it in the tuner's forward pass, which a PeftModel without a task type does not go through; lora_E is 0,
    # so the model's own loss is unchanged
    torch.testing.assert_close(wrapped.base_model(x).loss, plain + penalty)
    penalty.backward()
    assert all(p.grad is not None for name, p in toy.named_parameters() if "lora_A" in name or "lora_B" in name)


def test_ranks_fall_to_the_budget_and_stay_there() -> None:
    total = 10
    adapted = adapted_model("adalora", total_steps=total)
    schedule, optim = adalora_schedule(total), optimiser(adapted)
    left = []
    for step in range(total):
        train(adapted, 1, first=step, using=optim)
        values = [p for name, p in adapted.trainable.items() if ".lora_E." in name]
        left.append(sum(int(torch.count_nonzero(value)) for value in values))
    modules = len(values)
    assert left[: schedule["tinit"] + 1] == [6 * modules] * (schedule["tinit"] + 1)  # 1.5 × rank 4
    assert all(a >= b for a, b in itertools.pairwise(left))
    assert set(left[total - schedule["tfinal"] :]) == {4 * modules}
    assert sum(adapted.ranks().values()) == 4 * modules and len(set(adapted.ranks().values())) > 1


def test_a_skipped_step_does_not_lose_the_last_cut() -> None:
    total = 10
    last_cut = total - adalora_schedule(total)["tfinal"]
    adapted = adapted_model("adalora", total_steps=total)
    optim = optimiser(adapted)
    train(adapted, last_cut, using=optim)
    train(adapted, 2, first=last_cut + 1, using=optim)
    assert sum(adapted.ranks().values()) == 4 * len(adapted.ranks())


def test_importances_are_sensitivity_times_uncertainty() -> None:
    """After one step from zero: ipt = |w·g|, both running means as PEFT's β = 0.85 make them."""
    adapted = adapted_model("adalora", total_steps=10)
    adapted.model.zero_grad(set_to_none=True)
    objective(adapted.model(images())).backward()
    adapted.after_step(0)
    state = adapted.extra_state()
    name = next(name for name in adapted.trainable if ".lora_A.default" in name)
    weight, gradient = adapted.trainable[name].detach().numpy(), adapted.trainable[name].grad.numpy()
    sensitivity = np.abs(weight * gradient)
    np.testing.assert_allclose(state[f"adalora.exp_avg_ipt.{name}"].numpy(), 0.15 * sensitivity, rtol=1e-5)
    np.testing.assert_allclose(
        state[f"adalora.exp_avg_unc.{name}"].numpy(), 0.15 * np.abs(sensitivity - 0.15 * sensitivity), rtol=1e-5
    )
    assert not any(".heads." in key for key in state)
