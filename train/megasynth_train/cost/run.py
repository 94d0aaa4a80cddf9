"""The average cost of a step, from a run's settings. Free of PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from megasynth_train.cost.layers import StepShape, Tuning
from megasynth_train.cost.step import StepCost, step_cost
from megasynth_train.data.sizes import PATCH_PX, target_size
from megasynth_train.training.settings import AdapterSettings, DataSettings, TrainSettings, head_rank
from megasynth_train.vggt.config import named_config

KINDS = {"full": "full", "heads": "heads", "lora_xs": "basis", "subspace": "basis"}  # others: low-rank updates


def tuning_of(adapter: AdapterSettings, columns: int = 0) -> Tuning:
    """Return the tuning that the cost of an adapter is computed with; ``columns`` of its basis per layer (subspace).

    DoRA and AdaLoRA count as plain LoRA of their rank.
    """
    kind = KINDS.get(adapter.mode, "lora")
    if kind == "full" and adapter.train_encoder:
        kind = "all"
    return Tuning(kind, columns if adapter.mode == "subspace" else adapter.rank, head_rank(adapter))


def mean_step(settings: TrainSettings, tuning: Tuning, of: Callable[[StepCost], float]) -> float:
    """Return the mean of ``of(step)`` over the steps of a run, all with images of the mean aspect."""
    settings = settings.training()
    data, config = settings.data, named_config(settings.model.size, point_head=False)
    size_hw = target_size(data.width_px, (data.aspect.low + data.aspect.high) / 2, PATCH_PX)

    def cost(shape: StepShape) -> float:
        return of(step_cost(config, shape, tuning, recompute=settings.model.gradient_checkpointing))

    return mean_over_views(cost, data, size_hw)


def mean_over_views(cost: Callable[[StepShape], float], data: DataSettings, size_hw: tuple[int, int]) -> float:
    """Return the mean of ``cost(shape)``: each number of views weighted by how often it is drawn, with
    ``images_per_step // views`` scenes, at least one."""
    counts, weights = data.views.at_most(max(data.views.low, data.images_per_step)).whole_numbers()
    shapes = [StepShape(max(1, data.images_per_step // n), n, *size_hw) for n in counts.tolist()]
    return sum(w * cost(shape) for w, shape in zip(weights.tolist(), shapes, strict=True)) / float(weights.sum())
