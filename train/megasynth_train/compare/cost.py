"""What a comparison will take, before anything is trained: runs, trained parameters, arithmetic."""

from __future__ import annotations

from collections.abc import Callable

from megasynth_train.adapters.methods import head_rank
from megasynth_train.compare.methods import Method
from megasynth_train.compare.table import number, padded
from megasynth_train.compare.trainings import Prepared
from megasynth_train.cost import StepCost, expected_s, mean_over_views, step_cost
from megasynth_train.cost_layers import Tuning
from megasynth_train.data.plan import PATCH_PX
from megasynth_train.data.windows import target_size
from megasynth_train.vggt.config import named_config

_NOTE = (
    "Operations of the linear layers, convolutions and attention of all steps; hours: computed from rates assumed for "
    "one H200, not measured. DoRA and AdaLoRA take more than plain LoRA, as which they are counted."
)


def plan_text(prepared: Prepared) -> str:
    """Return the plan: one line per method with trained numbers, steps and cost of one run, then the sums."""
    settings = prepared.settings
    rows: list[tuple[str, ...]] = [
        ("method", "aggregator", "heads", "encoder", "all", "lr", "runs", "PFLOP/run", "H200 h/run")
    ]
    flops = hours = 0.0
    count = 0
    for method in prepared.methods:
        parts = prepared.parameters[method.name]
        runs = len(settings.seeds) if method.adapter is not None else 0
        one_flops, one_s = _run_cost(prepared, method) if runs else (0.0, 0.0)
        flops, hours, count = flops + runs * one_flops, hours + runs * one_s / 3600, count + runs
        cost = (f"{one_flops / 1e15:.3g}", f"{one_s / 3600:.2g}") if runs else ("", "")
        rate = f"{method.optim.lr:g}" if runs else ""
        shown = [number(parts[part]) for part in ("aggregator", "heads", "encoder")]
        rows.append((method.name, *shown, number(sum(parts.values())), rate, str(runs), *cost))
    steps = settings.optim.steps
    lines = [
        f"{settings.model.size}, {len(prepared.methods)} methods, seeds {', '.join(map(str, settings.seeds))}: {count} "
        f"trainings of {number(steps)} steps, about {flops / 1e15:.3g} PFLOP or {hours:.2g} H200 hours in all",
        padded(rows),
        _NOTE,
    ]
    return "\n\n".join(lines)


def _run_cost(prepared: Prepared, method: Method) -> tuple[float, float]:
    """Return floating-point operations of one training, and the seconds they take at the assumed rates."""
    settings = prepared.settings.training()
    data, config, tuning = settings.data, named_config(settings.model.size, point_head=False), _tuning(prepared, method)
    height, width = target_size(data.width_px, sum(data.aspect) / 2, PATCH_PX)

    def mean(of: Callable[[StepCost], float]) -> float:
        """Return the mean over a run's steps, which differ in their number of views."""
        return mean_over_views(
            lambda shape: of(step_cost(config, shape, tuning, recompute=settings.model.gradient_checkpointing)),
            views=(data.views[0], max(data.views[0], min(data.views[1], data.images_per_step))),
            images_per_step=data.images_per_step,
            height_px=height,
            width_px=width,
        )

    steps = method.optim.steps
    return steps * mean(lambda cost: cost.total), steps * mean(expected_s)


def _tuning(prepared: Prepared, method: Method) -> Tuning:
    adapter = method.adapter
    if adapter is None:
        raise ValueError(f"{method.name} is not trained")
    if adapter.mode == "full":
        return Tuning("all" if adapter.train_encoder else "full")
    if adapter.mode == "heads":
        return Tuning("heads", head_rank=head_rank(adapter))
    if method.basis and prepared.basis is not None:
        layers = prepared.basis.layers
        kept = [prepared.basis.columns[module] for module in layers]
        wanted = set(adapter.attributes) or set(prepared.basis.attributes)
        widths = [sum(end - start for name, (start, end) in spans.items() if name in wanted) for spans in kept]
        return Tuning("basis", rank=max(widths, default=0), head_rank=head_rank(adapter))
    kind = "basis" if adapter.mode == "lora_xs" else "lora"
    return Tuning(kind, rank=adapter.rank, head_rank=head_rank(adapter))
