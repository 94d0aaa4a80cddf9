"""What AdaLoRA adds to training: its orthogonality penalty, and its shrinking rank budget with a state that resumes.

PEFT's ``AdaLoraModel.update_and_allocate`` manages the budget; this file calls it at the right steps, and saves and
restores its state between steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from peft import AdaLoraConfig
from peft.tuners.adalora import AdaLoraModel
from torch import Tensor

from megasynth_attr.core.errors import DatasetError

PREFIX = "adalora."  # of every key of the state
IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # PEFT's running importances, one tensor per parameter each


class Allocation:
    """The rank budget of one AdaLoRA adapter."""

    def __init__(self, tuner: AdaLoraModel, adapter: str) -> None:
        self._tuner = tuner
        self._config = cast(AdaLoraConfig, tuner.peft_config[adapter])
        self._factors = [
            (name, parameter)
            for name, parameter in tuner.model.named_parameters()
            if name.endswith((f".lora_A.{adapter}", f".lora_B.{adapter}"))
        ]
        self._last_cut = cast(int, self._config.total_step) - self._config.tfinal
        self._final = False

    def penalty(self) -> Tensor:
        """Return weight × mean over all A and B of ‖AAᵀ − I‖_F and ‖BᵀB − I‖_F (AdaLoRA, eq. 4; unsquared as in PEFT).

        PEFT adds it to ``outputs.loss``, which VGGT does not have.
        """
        terms = []
        for name, factor in self._factors:
            gram = factor @ factor.T if ".lora_A." in name else factor.T @ factor
            terms.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device, dtype=gram.dtype)))
        return self._config.orth_reg_weight * torch.stack(terms).mean()

    def after_step(self, step: int) -> None:
        """Update importances and masks; call after the optimiser's step, while the gradients are still there.

        If the step of the last cut was skipped (a non-finite loss), the next step makes the cut.
        """
        if step >= self._last_cut and not self._final:
            self._tuner.update_and_allocate(self._last_cut)
            self._final = True
        else:
            self._tuner.update_and_allocate(step)

    def ranks(self) -> dict[str, int]:
        """Return how many ranks each adapted module has left."""
        pattern = self._config.rank_pattern or {}
        return {name.partition(".lora_E")[0]: sum(mask) for name, mask in pattern.items()}

    def state(self) -> dict[str, Tensor]:
        """Return everything that must be stored with a checkpoint besides the parameters."""
        allocator = self._tuner.rankallocator
        state = {f"{PREFIX}final": torch.tensor(self._final)}
        for kind in IMPORTANCE:
            state |= {f"{PREFIX}{kind}.{name}": value for name, value in getattr(allocator, kind).items()}
        for name, mask in (self._config.rank_pattern or {}).items():
            state[f"{PREFIX}mask.{name}"] = torch.tensor(mask)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state``, on the device of the parameters; DatasetError if it belongs to other modules."""
        parameters = dict(self._tuner.model.named_parameters())
        kinds: dict[str, dict[str, Tensor]] = {kind: {} for kind in (*IMPORTANCE, "mask")}
        for key, value in state.items():
            kind, _, name = key.removeprefix(PREFIX).partition(".")
            if kind == "final":
                continue
            shape = parameters[name].shape if name in parameters else None
            if kind not in kinds or shape is None or value.shape != (shape[:1] if kind == "mask" else shape):
                raise DatasetError(
                    f"the checkpoint holds {key}, which does not belong to this model; choose another out="
                )
            kinds[kind][name] = value
        self._final = bool(state[f"{PREFIX}final"])
        self._config.rank_pattern = {name: mask.tolist() for name, mask in kinds.pop("mask").items()} or None
        for kind, values in kinds.items():
            placed = {name: value.to(parameters[name].device, copy=True) for name, value in values.items()}
            setattr(self._tuner.rankallocator, kind, placed)
