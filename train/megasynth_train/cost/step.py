"""The cost of one training step: floating-point operations by part, and the seconds they take at given rates.

A multiplication and an addition count as two operations. Only linear layers, convolutions and attention count; layer
norms, activations, losses and the optimiser are memory-bound and below 1 % of the arithmetic. Attention is counted as
flash attention does it: two products forward, five backward, because the scores are computed again.

``torch.utils.flop_counter`` gives exactly these numbers on the meta device (a test compares them, forward and backward,
for every kind of tuning), but needs 5 to 7 CPU seconds for one step of vggt-1b after 4 for importing PyTorch. A plan
needs 13 numbers of views for every method of a comparison: minutes instead of 0.04 s per method. It also counts
attention in the plain formulation only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from megasynth_attr.core.errors import ConfigError
from megasynth_train.cost.layers import (
    SPECIAL_TOKENS,
    Layer,
    StepShape,
    Tuning,
    block_layers,
    camera_layers,
    depth_layers,
    token_count,
)
from megasynth_train.data.sizes import PATCH_PX, target_size
from megasynth_train.training.settings import AdapterSettings, DataSettings, TrainSettings, head_rank
from megasynth_train.vggt.config import EVERYTHING, NOTHING, VGGTConfig, named_config

ATTENTION_BACKWARD = 2.5  # times the forward pass; 2.0 in the plain formulation, whose four products a profiler counts

# TFLOP/s: an estimate for one H200 (bf16 GEMMs, flash attention with 64-wide heads, TF32 convolutions), not measured
GEMM_RATE, ATTENTION_FORWARD_RATE, ATTENTION_BACKWARD_RATE, DEPTH_HEAD_RATE = 650.0, 450.0, 350.0, 220.0

KINDS = {"full": "full", "heads": "heads", "lora_xs": "basis", "subspace": "basis"}  # others: low-rank updates


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one part of a step."""

    forward: float = 0.0
    backward: float = 0.0
    recompute: float = 0.0  # the forward pass again, if activations are not stored

    def __add__(self, other: Work) -> Work:
        return Work(self.forward + other.forward, self.backward + other.backward, self.recompute + other.recompute)

    def __mul__(self, factor: float) -> Work:
        return Work(self.forward * factor, self.backward * factor, self.recompute * factor)

    @property
    def total(self) -> float:
        """Return the FLOP of all passes."""
        return self.forward + self.backward + self.recompute


@dataclass(frozen=True)
class StepCost:
    """Work by part: encoder_linears, encoder_attention, aggregator_linears, frame_attention, global_attention,
    camera_head, depth_head, adapters (of the aggregator), head_adapters."""

    parts: Mapping[str, Work]

    @property
    def work(self) -> Work:
        """Return the sum over the parts."""
        return sum(self.parts.values(), Work())

    @property
    def total(self) -> float:
        """Return the FLOP of a step."""
        return self.work.total


def expected_s(cost: StepCost) -> float:
    """Return the seconds a step takes if every part reaches its rate and nothing else costs time."""
    seconds = 0.0
    for name, work in cost.parts.items():
        if name.endswith("attention"):
            seconds += (work.forward + work.recompute) / ATTENTION_FORWARD_RATE
            seconds += work.backward / ATTENTION_BACKWARD_RATE
        else:
            seconds += work.total / (DEPTH_HEAD_RATE if name in ("depth_head", "head_adapters") else GEMM_RATE)
    return seconds / 1e12


def step_cost(config: VGGTConfig, shape: StepShape, tuning: Tuning, *, kept: str = EVERYTHING) -> StepCost:
    """Return the operations of the forward and backward pass of one step of ``shape``, summed over its images.

    kept: what trained blocks keep for the backward pass, one of KEPT; the rest of their forward pass runs again there,
    and so does the depth head's, unless everything is kept.
    ConfigError if the images are not whole patches.
    """
    patch = config.patch_size_px
    if shape.height_px % patch or shape.width_px % patch:
        raise ConfigError(f"image size {shape.width_px}×{shape.height_px} px: must be multiples of {patch} px")
    parts: dict[str, Work] = {}
    again, attention_again = float(kept != EVERYTHING), float(kept == NOTHING)

    def add(name: str, work: Work, recomputed: float = 0.0) -> None:
        parts[name] = parts.get(name, Work()) + Work(work.forward, work.backward, work.forward * recomputed)

    linears, attention = _encoder(config, shape, trained=tuning.kind == "all")
    add("encoder_linears", linears, again * (tuning.kind == "all"))
    add("encoder_attention", attention, attention_again * (tuning.kind == "all"))
    for name, work in _aggregator(config, shape, tuning).items():
        once_more = attention_again if name.endswith("attention") else again
        add(name, work, once_more * tuning.reaches_aggregator)  # nothing runs again for what is not trained
    heads: list[tuple[str, list[Layer]]] = []
    if config.camera_head:
        heads.append(("camera_head", camera_layers(config, shape, tuning)))
        attention = _attention(shape.scenes, shape.views, 2 * config.width)
        add("camera_head", attention * (config.camera_depth * config.camera_iterations))
    if config.depth_head:
        heads.append(("depth_head", depth_layers(config, shape, tuning)))
    for name, layers in heads:
        once_more = again * (name == "depth_head")
        add(name, sum((_base(layer, frozen=tuning.adapted) for layer in layers), Work()), once_more)
        if tuning.adapted:
            adapters = (_lora(layer, tuning.head_rank) for layer in layers if layer.adaptable)
            add("head_adapters", sum(adapters, Work()), once_more)
    return StepCost(parts)


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
        return of(step_cost(config, shape, tuning, kept=settings.model.kept))

    return mean_over_views(cost, data, size_hw)


def mean_over_views(cost: Callable[[StepShape], float], data: DataSettings, size_hw: tuple[int, int]) -> float:
    """Return the mean of ``cost(shape)``: each number of views weighted by how often it is drawn, with
    ``images_per_step // views`` scenes, at least one."""
    weights = drawn_shapes(data, size_hw)
    return sum(weight * cost(shape) for shape, weight in weights.items()) / sum(weights.values())


def drawn_shapes(data: DataSettings, size_hw: tuple[int, int]) -> dict[StepShape, float]:
    """Return the shapes that steps may have, and how often each is drawn relative to the others."""
    counts, weights = data.views.at_most(max(data.views.low, data.images_per_step)).whole_numbers()
    shapes = [StepShape(max(1, data.images_per_step // n), n, *size_hw) for n in counts.tolist()]
    return dict(zip(shapes, weights.tolist(), strict=True))


def _base(layer: Layer, *, frozen: bool, trained: bool = True) -> Work:
    """Return a layer's own products: forward, gradient of the input and, unless frozen, of the weight."""
    forward = 2.0 * layer.positions * layer.fan_in * layer.out
    return Work(forward, trained * forward * (layer.input_grad + (not frozen)))


def _lora(layer: Layer, rank: int) -> Work:
    """Return the work of s·B(A x): both matrices get a gradient, and the input if anything before it is trained."""
    down, up = 2.0 * layer.positions * layer.fan_in * rank, 2.0 * layer.positions * rank * layer.out
    return Work(down + up, down * (1 + layer.input_grad) + 2 * up)


def _basis(layer: Layer, dimension: int) -> Work:
    """Return the work of s·A(M(Bᵀx)): only M gets a weight gradient."""
    down, up = 2.0 * layer.positions * layer.fan_in * dimension, 2.0 * layer.positions * dimension * layer.out
    middle = 2.0 * layer.positions * dimension**2
    return Work(down + middle + up, up + middle + layer.input_grad * (middle + down))


def _attention(batch: int, tokens: int, width: int, *, trained: bool = True) -> Work:
    forward = 4.0 * batch * tokens**2 * width
    return Work(forward, trained * ATTENTION_BACKWARD * forward)


def _encoder(config: VGGTConfig, shape: StepShape, *, trained: bool) -> tuple[Work, Work]:
    """Return the work of the encoder's linears (with the patch convolution) and of its attention."""
    tokens = token_count(config, shape, config.encoder_register_count)
    patches = tokens - SPECIAL_TOKENS - config.encoder_register_count
    layers = [Layer(shape.images * patches, 3 * config.patch_size_px**2, config.width, input_grad=False)]
    layers += block_layers(shape.images * tokens, config.width, config.mlp_ratio) * config.encoder_depth
    linears = sum((_base(layer, frozen=False, trained=trained) for layer in layers), Work())
    attention = _attention(shape.images, tokens, config.width, trained=trained)
    return linears, attention * config.encoder_depth


def _aggregator(config: VGGTConfig, shape: StepShape, tuning: Tuning) -> dict[str, Work]:
    tokens, trained = token_count(config, shape, config.register_count), tuning.reaches_aggregator
    # The first block's input is the frozen encoder's output and, where adapters are trained, frozen tokens.
    first = block_layers(shape.images * tokens, config.width, config.mlp_ratio, first_input_grad=not tuning.adapted)
    rest = block_layers(shape.images * tokens, config.width, config.mlp_ratio)
    layers = first + rest * (2 * config.depth - 1)
    frame = _attention(shape.images, tokens, config.width, trained=trained)
    across = _attention(shape.scenes, shape.views * tokens, config.width, trained=trained)
    works = {
        "aggregator_linears": sum((_base(x, frozen=tuning.adapted, trained=trained) for x in layers), Work()),
        "frame_attention": frame * config.depth,
        "global_attention": across * config.depth,
    }
    if tuning.kind in ("lora", "basis"):
        adapter = _lora if tuning.kind == "lora" else _basis
        works["adapters"] = sum((adapter(layer, tuning.rank) for layer in layers), Work())
    return works
