"""Less memory and fewer casts for training adapters under bf16 autocast, with the same result to the last bit."""

from __future__ import annotations

from peft.tuners.tuners_utils import BaseTunerLayer

from megasynth_train.adapters.adapted import Adapted
from megasynth_train.adapters.subspace.layer import SubspaceLinear
from megasynth_train.vggt.precision import store_frozen_in_bf16

# full saves frozen weights with the model, which must stay float32; DoRA takes norms of the base weight itself
NEED_FLOAT32_WEIGHTS = ("full", "dora")


def make_lean(adapted: Adapted) -> bool:
    """Keep frozen linears of encoder and aggregator, and bases, in bfloat16 and give adapters their input as it is.

    PEFT casts every input to the adapter's float32, autocast casts it back: copies of the largest activations, kept
    for the backward pass. Returns whether anything was done; the modes of NEED_FLOAT32_WEIGHTS are left alone.
    Afterwards the model runs under bf16 autocast only.
    """
    if adapted.mode in NEED_FLOAT32_WEIGHTS:
        return False
    store_frozen_in_bf16(adapted.model)
    for module in adapted.model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]
        if isinstance(module, SubspaceLinear):
            module.store_basis_in_bf16()
    return True
