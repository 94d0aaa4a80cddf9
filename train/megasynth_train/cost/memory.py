"""The GPU memory of a training step, by part, and the settings that keep most of it and still fit a GPU.

Estimates from sizes alone, without PyTorch. The constants were counted in one block or measured on H200s with vggt-1b
(benchmarks/train_step.md); other sizes are scaled from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.ranges import Uniform
from megasynth_train.cost.layers import (
    Layer,
    StepShape,
    Tuning,
    block_layers,
    camera_layers,
    depth_layers,
    token_count,
)
from megasynth_train.cost.step import drawn_shapes
from megasynth_train.data.sizes import PATCH_PX, target_size
from megasynth_train.training.settings import NEED_FLOAT32_WEIGHTS, TrainSettings
from megasynth_train.vggt.config import ATTENTION, EVERYTHING, HEAD_FRAMES, KEPT, NOTHING, VGGTConfig, named_config

GIB = 2**30
# Bytes saved for backward per token, block and channel of the width, under bf16 autocast with an fp32 residual stream:
# counted in compiled aggregator blocks of width 1024 and mlp_ratio 4, without copies of weights (39.4, 41.3, 27.6 and
# 32.0 kB per token); uncompiled ones keep about 6 kB more.
SAVED_BYTES = {"lora": 39.4e3 / 1024, "full": 41.3e3 / 1024, "all": 41.3e3 / 1024, "heads": 0.0}
SAVED_BYTES_BASIS = (27.6e3 / 1024, 32.0e3 / 1024)  # at D = 32 and D = 256, linear in D between and beyond
UNCOMPILED_BYTES = 6.0e3 / 1024
RESIDUAL_BYTES = 4  # fp32 residual stream: all that is stored of a block that keeps nothing
ATTENTION_BYTES = 2  # attention's output in bf16; its log-sum-exp, 4 bytes for every head, comes on top
FP32_FACTOR = 2  # model.precision=fp32: at most twice the bytes in blocks
# Per pixel and DPT feature, with LoRA and the largest gradients: 0.86 GiB an image in fp32, 0.46 in bf16, 0.44 compiled
DEPTH_HEAD_BYTES = 0.86 * GIB / (518 * 518 * 256)
BF16_HEAD_SHARE, COMPILED_BF16_HEAD_SHARE = 0.46 / 0.86, 0.44 / 0.86
INPUT_BYTES = 24  # per pixel of the whole step: decoded and network's images, both depths, mask
TRAINED_BYTES = 12  # per trained parameter: gradient and AdamW's two moments
USABLE = 0.95  # share of the free memory: the rest is lost between blocks of the allocator


def memory_bytes(
    config: VGGTConfig,
    shape: StepShape,
    tuning: Tuning,
    *,
    kept: str = EVERYTHING,
    frozen_bf16: bool = False,
    depth_head: str = "fp32",
    compiled: bool = True,
    scenes_at_once: int = 0,
) -> dict[str, float]:
    """Return an estimate of the bytes held at the end of a forward pass by part: blocks (saved activations),
    depth_head, weights, bf16_copies, taps, tap_gradients, training (gradients, moments), inputs. Fragmentation comes on
    top.

    frozen_bf16: frozen linears of encoder and aggregator are stored in bf16, so they need no copies. A block that is
    computed again needs less than the frames that the depth head computes again, which are free by then.
    """
    images = min(shape.scenes, scenes_at_once or shape.scenes) * shape.views
    tokens = images * token_count(config, shape, config.register_count)
    blocks = 2 * config.depth * tokens * config.width
    saved = _saved_bytes(config, tuning, kept, compiled) if tuning.reaches_aggregator else 0.0
    linears = 12 * config.width**2  # of a block; mlp_ratio 4, as for the measured constants
    encoder, aggregator = config.encoder_depth * linears, 2 * config.depth * linears
    half = 2 * (encoder + aggregator) if frozen_bf16 and tuning.adapted else 0
    heads = _matrices(_head_layers(config, tuning))
    pixels = shape.height_px * shape.width_px
    head_images = images if kept == EVERYTHING else min(images, HEAD_FRAMES)
    taps = 4.0 * len(config.taps) * 2 * config.width * tokens
    head_bytes = DEPTH_HEAD_BYTES
    if depth_head == "bf16":
        head_bytes *= COMPILED_BF16_HEAD_SHARE if compiled else BF16_HEAD_SHARE
    return {
        "blocks": blocks * saved,
        "depth_head": head_bytes * head_images * pixels * config.dpt_features if config.depth_head else 0.0,
        "weights": 4.0 * (encoder + aggregator + heads) - half,
        "bf16_copies": 0.0 if half else 2.0 * aggregator * tuning.reaches_aggregator,
        "taps": taps,
        "tap_gradients": 0.0 if kept == EVERYTHING else taps,  # there they are among the depth head's bytes
        "training": TRAINED_BYTES * trained_parameters(config, tuning),
        "inputs": float(INPUT_BYTES * shape.images * pixels),
    }


def trained_parameters(config: VGGTConfig, tuning: Tuning) -> float:
    """Return the number of trained parameters in matrices; vectors (norms, biases, tokens) are below 0.1 %."""
    block, heads = block_layers(1, config.width, config.mlp_ratio), _head_layers(config, tuning)
    if not tuning.adapted:
        blocks = 2 * config.depth + config.encoder_depth * (tuning.kind == "all")
        return blocks * _matrices(block) + _matrices(heads)
    low_rank = sum(tuning.head_rank * (layer.fan_in + layer.out) for layer in heads if layer.adaptable)
    if tuning.kind == "lora":
        return low_rank + 2 * config.depth * sum(tuning.rank * (layer.fan_in + layer.out) for layer in block)
    return low_rank + 2 * config.depth * len(block) * tuning.rank**2 * tuning.reaches_aggregator


def step_bytes(settings: TrainSettings, tuning: Tuning, shape: StepShape) -> float:
    """Return the estimated peak of a step of ``shape`` on a CUDA GPU."""
    model, mixed = settings.model, settings.model.precision != "fp32"
    parts = memory_bytes(
        named_config(model.size, point_head=False),
        shape,
        tuning,
        kept=model.kept,
        frozen_bf16=mixed and settings.adapter.mode not in NEED_FLOAT32_WEIGHTS,
        depth_head=("bf16" if mixed else "fp32") if model.depth_head == "auto" else model.depth_head,
        compiled=model.compile,
        scenes_at_once=settings.data.scenes_at_once,
    )
    return sum(parts.values()) + parts["blocks"] * (FP32_FACTOR - 1) * (not mixed)


def largest_step(settings: TrainSettings, tuning: Tuning) -> tuple[float, StepShape]:
    """Return the estimated peak of a run, and the shape of the step that needs it."""
    settings = settings.training()
    size_hw = target_size(settings.data.width_px, settings.data.aspect.high, PATCH_PX)
    shapes = drawn_shapes(settings.data, size_hw)
    return max(((step_bytes(settings, tuning, shape), shape) for shape in shapes), key=lambda pair: pair[0])


def images_at_once(settings: TrainSettings) -> int:
    """Return how many images at most go through the model at a time."""
    at_once, shapes = settings.data.scenes_at_once, drawn_shapes(settings.data, (PATCH_PX, PATCH_PX))
    return max(min(shape.scenes, at_once or shape.scenes) * shape.views for shape in shapes)


def fit(settings: TrainSettings, tuning: Tuning, free_bytes: float, pieces: int | None = None) -> TrainSettings:
    """Return ``settings`` with the largest budget that fits ``free_bytes``: everything kept and all scenes at once,
    else fewer scenes at once, else blocks that keep only attention's results, else nothing: a third more arithmetic.

    What ``settings`` already save stays saved. EnvironmentProblem if not one scene fits. ``pieces``: scenes at once of
    a run that goes on; they stay, whatever fits.
    """
    tried = settings
    for tried in _budgets(settings, pieces):
        if largest_step(tried, tuning)[0] <= USABLE * free_bytes:
            return tried
    if pieces is not None:
        return tried
    peak, shape = largest_step(tried, tuning)
    views = most_views(tried, tuning, free_bytes)
    advice = f"lower data.views (at most {views} views fit) or data.width_px" if views else "use a larger GPU"
    raise EnvironmentProblem(
        f"one scene of {shape.views} views of {shape.width_px} × {shape.height_px} px is estimated to need "
        f"{peak / GIB:.1f} GiB, every block computed again, and of the GPU's {free_bytes / GIB:.1f} GiB that are free "
        f"{USABLE:.0%} can be used; {advice}"
    )


def most_views(settings: TrainSettings, tuning: Tuning, free_bytes: float) -> int:
    """Return with how many views one scene fits under the most saving settings; 0 if with none."""
    settings = list(_budgets(settings))[-1]
    counts = range(1, settings.data.images_per_step + 1)
    alone = (replace(settings, data=replace(settings.data, views=Uniform(n, n))) for n in counts)
    fitting = [n for n, each in zip(counts, alone, strict=True) if largest_step(each, tuning)[0] <= USABLE * free_bytes]
    return max(fitting, default=0)


def _budgets(settings: TrainSettings, pieces: int | None = None) -> Iterator[TrainSettings]:
    """Yield settings from the most memory to the least; ``pieces``: only with so many scenes at once."""
    data, scenes = settings.data, max(shape.scenes for shape in drawn_shapes(settings.data, (PATCH_PX, PATCH_PX)))
    fewer = range(min(data.scenes_at_once or scenes, scenes) - 1, 0, -1)
    counts = (data.scenes_at_once, *fewer) if pieces is None else (pieces,)
    for kept in KEPT[KEPT.index(settings.model.kept) :]:
        for at_once in counts:
            yield replace(settings, model=settings.model.keeping(kept), data=replace(data, scenes_at_once=at_once))


def _head_layers(config: VGGTConfig, tuning: Tuning) -> list[Layer]:
    """Return every layer of the heads once."""
    shape = StepShape(1, 1, config.patch_size_px, config.patch_size_px)
    layers = camera_layers(replace(config, camera_iterations=1), shape, tuning) if config.camera_head else []
    return layers + (depth_layers(config, shape, tuning) if config.depth_head else [])


def _matrices(layers: list[Layer]) -> float:
    return float(sum(layer.fan_in * layer.out for layer in layers))


def _saved_bytes(config: VGGTConfig, tuning: Tuning, kept: str, compiled: bool) -> float:
    """Return the bytes that a block keeps for the backward pass, per token and channel of the width."""
    if kept == NOTHING:
        return RESIDUAL_BYTES
    if kept == ATTENTION:
        return RESIDUAL_BYTES + ATTENTION_BYTES + 4 * config.heads / config.width
    low, high = SAVED_BYTES_BASIS
    basis = low + (high - low) * (tuning.rank - 32) / (256 - 32)
    return SAVED_BYTES.get(tuning.kind, basis) + (not compiled) * UNCOMPILED_BYTES
