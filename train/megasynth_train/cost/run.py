"""What a step of a run takes on average, from the run's settings. Free of PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from megasynth_train.cost.layers import Tuning
from megasynth_train.cost.step import StepCost, mean_over_views, step_cost
from megasynth_train.data.sizes import PATCH_PX, target_size
from megasynth_train.training.settings import AdapterSettings, TrainSettings, head_rank
from megasynth_train.vggt.config import named_config

KINDS = {"full": "full", "heads": "heads", "lora_xs": "basis", "subspace": "basis"}  # others: low-rank updates


def tuning_of(adapter: AdapterSettings, columns: int = 0) -> Tuning:
    """Return what an adapter costs by; ``columns``: those of its basis in a layer (mode=subspace).

    DoRA and AdaLoRA count as plain LoRA of their rank.
    """
    kind = KINDS.get(adapter.mode, "lora")
    if kind == "full" and adapter.train_encoder:
        kind = "all"
    return Tuning(kind, columns if adapter.mode == "subspace" else adapter.rank, head_rank(adapter))


def mean_step(settings: TrainSettings, tuning: Tuning, of: Callable[[StepCost], float]) -> float:
    """Return the mean of ``of(step)`` over the steps of a run, which differ in their number of views.

    Numbers of views above data.images_per_step are not drawn (``data.plan.usable_views``); images have the mean aspect.
    """
    settings = settings.resolved()
    data, config = settings.data, named_config(settings.model.size, point_head=False)
    height_px, width_px = target_size(data.width_px, (data.aspect.low + data.aspect.high) / 2, PATCH_PX)
    return mean_over_views(
        lambda shape: of(step_cost(config, shape, tuning, recompute=settings.model.gradient_checkpointing)),
        views=data.views.at_most(max(data.views.low, data.images_per_step)),
        images_per_step=data.images_per_step,
        height_px=height_px,
        width_px=width_px,
    )
