"""What one training step must hold on the GPU: bytes by part, estimated before any measurement.

The constants are those of a reference block, so the estimate is a lower bound. Counted with saved-tensor hooks, our
uncompiled block held about 3.5 kB more per token (LoRA-16: 47.5 instead of 44.0 kB).
"""

from __future__ import annotations

from megasynth_train.cost.layers import StepShape, Tuning, depth_layers, token_count
from megasynth_train.vggt.config import VGGTConfig

GIB = 2**30

# Bytes saved for backward per token, block and channel of the width: measured on one aggregator block under bf16
# autocast with an fp32 residual stream, at width 1024 and mlp_ratio 4 (44.0, 29.8, 31.6 and 48.0 kB per token).
SAVED_BYTES = {"lora": 44.0e3 / 1024, "full": 48.0e3 / 1024, "all": 48.0e3 / 1024, "heads": 0.0}
SAVED_BYTES_BASIS = (29.8e3 / 1024, 31.6e3 / 1024)  # at D = 32 and D = 256, linear in D between and beyond
DEPTH_HEAD_BYTES = 0.65 * GIB / (518 * 518 * 256)  # per pixel and DPT feature: fp32 with LoRA
RESIDUAL_BYTES = 4  # fp32 residual stream: all that block checkpointing stores


def memory_bytes(
    config: VGGTConfig, shape: StepShape, tuning: Tuning, *, recompute: bool = False, frozen_bf16: bool = False
) -> dict[str, float]:
    """Return an estimate of the bytes held at the end of the forward pass by part, eager bf16 autocast on CUDA:
    blocks (saved activations), depth_head, weights, bf16_copies, taps. Caching and fragmentation come on top.

    frozen_bf16: frozen linears of encoder and aggregator are stored in bf16, so they need no copies.
    """
    tokens = shape.images * token_count(config, shape, config.register_count)
    blocks = 2 * config.depth * tokens * config.width
    saved = _saved_bytes(tuning) if tuning.reaches_aggregator else 0.0
    linears = 12 * config.width**2  # of a block; mlp_ratio 4, as for the measured constants
    encoder, aggregator = config.encoder_depth * linears, 2 * config.depth * linears
    half = 2 * (encoder + aggregator) if frozen_bf16 and tuning.adapted else 0
    pixels = shape.images * shape.height_px * shape.width_px
    return {
        "blocks": blocks * (min(saved, RESIDUAL_BYTES) if recompute else saved),
        "depth_head": DEPTH_HEAD_BYTES * pixels * config.dpt_features if config.depth_head else 0.0,
        "weights": 4 * _parameters(config) - half,
        "bf16_copies": 0.0 if half else 2.0 * aggregator * tuning.reaches_aggregator,
        "taps": 4.0 * len(config.taps) * 2 * config.width * tokens,
    }


def _saved_bytes(tuning: Tuning) -> float:
    if tuning.kind != "basis":
        return SAVED_BYTES[tuning.kind]
    low, high = SAVED_BYTES_BASIS
    return low + (high - low) * (tuning.rank - 32) / (256 - 32)


def _parameters(config: VGGTConfig) -> float:
    """Return the number of parameters in matrices; vectors (norms, biases, tokens) are below 0.1 %."""
    shape = StepShape(1, 1, config.image_size_px, config.image_size_px)
    layers = depth_layers(config, shape, Tuning("full")) if config.depth_head else []
    heads: float = sum(layer.fan_in * layer.out for layer in layers)
    wide = 2 * config.width
    if config.camera_head:
        heads += config.camera_depth * (4 + 2 * config.mlp_ratio) * wide**2 + 3 * wide**2 + wide * config.width
    return (config.encoder_depth + 2 * config.depth) * 12 * config.width**2 + heads
