"""A model in training: its trained parameters, their groups, and what its method does around a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.adalora import AdaLoraModel
from torch import Tensor, nn

from megasynth_attr.core.errors import DatasetError
from megasynth_train.adapters import frozen_vectors, parts
from megasynth_train.adapters.adalora import PREFIX, Allocation
from megasynth_train.adapters.methods import MAIN
from megasynth_train.adapters.subspace.layer import free_numbers
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.model import VGGT


@dataclass(frozen=True)
class Base:
    """The model an adapter belongs to, as it was before adapting."""

    size: str  # a name of vggt.config.SIZES, or "" for other sizes
    config: dict[str, Any]
    weights_sha256: str  # vggt.checkpoint.weights_hash


@dataclass(eq=False)
class Adapted:
    """A VGGT with its trained parameters; made by ``adapt`` or ``load_adapter``.

    ``model`` is the VGGT itself, with PEFT's layers in place of the adapted ones: call ``model(images)``. ``trainable``
    maps the names of ``model.named_parameters()`` to the trained parameters. ``undecayed`` names parameters whose
    neutral value is not 0 (LoRA-XS starts at the identity): weight decay would move the model away from its base.
    """

    model: VGGT
    settings: AdapterSettings
    base: Base
    seed: int
    total_steps: int  # 0: for prediction only
    wrapped: Mapping[str, PeftModel] = field(default_factory=dict)  # PEFT's view of each adapter, by its name
    initial: Mapping[str, Tensor] = field(
        default_factory=dict
    )  # initial values, on the CPU, from which drift is measured
    notes: Sequence[str] = ()  # what the user should know

    def __post_init__(self) -> None:
        self.trainable = parts.trained(self.model)
        self.groups = parts.groups(self.trainable)
        self.undecayed = frozenset(name for name in self.trainable if ".psoft_R." in name)
        tuner = self.wrapped[MAIN].base_model if self.total_steps and self.wrapped else None
        self._allocation = Allocation(tuner, MAIN) if isinstance(tuner, AdaLoraModel) else None
        self._free = free_numbers(self.model)

    @property
    def mode(self) -> str:
        """Return AdapterSettings.mode."""
        return self.settings.mode

    def parameter_count(self) -> int:
        """Return the number of trained parameters."""
        return sum(row.parameters for row in self.parameter_table())

    def parameter_table(self) -> tuple[parts.Row, ...]:
        """Return the trained parameters by part and kind."""
        return parts.parameter_rows(self.trainable, self._free)

    def penalty(self) -> Tensor | None:
        """Return what the method adds to the objective (AdaLoRA: orthogonality), or None."""
        return None if self._allocation is None else self._allocation.penalty()

    def after_step(self, step: int) -> None:
        """Update the method's state after a step (AdaLoRA: importances and masks); ``step`` counts from 0.

        Call it after the optimiser's step and before the gradients are cleared, and not for a skipped step.
        """
        if self._allocation is not None:
            self._allocation.after_step(step)

    def ranks(self) -> dict[str, int]:
        """Return AdaLoRA's rank per module after its last cut; empty before that and for other modes."""
        return {} if self._allocation is None else self._allocation.ranks()

    def extra_state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold besides ``trainable``: AdaLoRA's importances, LoRA-XS' frozen bases.

        The other modes have none: ``adapt`` derives theirs again from seed and base weights.
        """
        state = {} if self._allocation is None else self._allocation.state()
        return state | frozen_vectors.bases(self.model)

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``extra_state`` returned; DatasetError if it is the state of something else."""
        own = {key: value for key, value in state.items() if key.startswith(PREFIX)}
        vectors = {key: value for key, value in state.items() if key not in own}
        if bool(own) != (self._allocation is not None) or vectors.keys() != frozen_vectors.bases(self.model).keys():
            raise DatasetError(
                f"the checkpoint's method state ({len(state)} tensors) is not that of mode={self.mode} with these "
                "settings; it was written by another run: choose another out="
            )
        if self._allocation is not None:
            self._allocation.load_state(own)
        frozen_vectors.set_bases(self.model, vectors)


def initial_values(trainable: Mapping[str, nn.Parameter], mode: str) -> dict[str, Tensor]:
    """Return copies on the CPU of every ``lora_A``, and of PiSSA's ``lora_B``, which also starts away from 0."""
    kinds = [".lora_A."] + ([".lora_B.default."] if mode == "pissa" else [])
    return {
        name: parameter.detach().to("cpu", torch.float32, copy=True)
        for name, parameter in trainable.items()
        if any(kind in name for kind in kinds) and not parameter.is_meta
    }
