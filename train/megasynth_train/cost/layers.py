"""The matrix products of one training step of VGGT, as lists of layers with their sizes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from megasynth_attr.core.errors import ConfigError
from megasynth_train.vggt.config import VGGTConfig

TUNINGS = ("lora", "basis", "heads", "full", "all")
SPECIAL_TOKENS = 1  # the camera token (aggregator) or the class token (encoder) of every image


@dataclass(frozen=True)
class StepShape:
    """Scenes × views of one step and the size of every image."""

    scenes: int
    views: int
    height_px: int = 518
    width_px: int = 518

    @property
    def images(self) -> int:
        """Return how many images a step holds."""
        return self.scenes * self.views


@dataclass(frozen=True)
class Tuning:
    """What is trained.

    lora: low-rank updates of ``rank`` on the aggregator's linears; basis: s·A·M·Bᵀ there, A and B frozen, M of
    ``rank`` × ``rank``; both with low-rank updates of ``head_rank`` on the heads. heads: only those. full: everything
    but the encoder; all: everything.
    """

    kind: str = "lora"
    rank: int = 16
    head_rank: int = 16

    def __post_init__(self) -> None:
        if self.kind not in TUNINGS:
            raise ConfigError(f"tuning {self.kind}: must be one of {', '.join(TUNINGS)}")

    @property
    def adapted(self) -> bool:
        """Return whether base weights stay frozen."""
        return self.kind in ("lora", "basis", "heads")

    @property
    def reaches_aggregator(self) -> bool:
        """Return whether gradients flow from the heads into the aggregator."""
        return self.kind != "heads"


@dataclass(frozen=True)
class Layer:
    """A linear layer or convolution: ``positions`` products with a ``fan_in`` × ``out`` matrix."""

    positions: int
    fan_in: int
    out: int
    input_grad: bool = True  # false where nothing before it is trained
    adaptable: bool = True


def token_count(config: VGGTConfig, shape: StepShape, registers: int) -> int:
    """Return the number of tokens of one image: its patches, one special token and the registers."""
    patch = config.patch_size_px
    return (shape.height_px // patch) * (shape.width_px // patch) + SPECIAL_TOKENS + registers


def block_layers(positions: int, width: int, mlp_ratio: float, first_input_grad: bool = True) -> list[Layer]:
    """Return the four linears of a transformer block: qkv, proj, fc1, fc2."""
    hidden = int(width * mlp_ratio)
    return [
        Layer(positions, width, 3 * width, first_input_grad),
        Layer(positions, width, width),
        Layer(positions, width, hidden),
        Layer(positions, hidden, width),
    ]


def camera_layers(config: VGGTConfig, shape: StepShape, tuning: Tuning) -> list[Layer]:
    """Return the layers of all refinement iterations.

    The pose fed back is detached and the first one is a parameter, so embed_pose needs its input's gradient at most
    once.
    """
    wide, images = 2 * config.width, shape.images
    rest = [
        Layer(images, wide, 3 * wide),
        *block_layers(images, wide, config.mlp_ratio) * config.camera_depth,
        Layer(images, wide, config.width),
        Layer(images, config.width, 9),
    ]
    first = [Layer(images, 9, wide, input_grad=not tuning.adapted), *rest]
    return first + [Layer(images, 9, wide, input_grad=False), *rest] * (config.camera_iterations - 1)


def depth_layers(config: VGGTConfig, shape: StepShape, tuning: Tuning) -> list[Layer]:
    """Return the convolutions of the depth head, finest level first; two transposed ones (stride 4, 2) take no adapter.

    The 1×1 convolution of a level's fusion runs before the upsampling; after it, as published, the same result takes
    four times the work.
    """
    n, features, channels = shape.images, config.dpt_features, config.dpt_channels
    h, w = shape.height_px // config.patch_size_px, shape.width_px // config.patch_size_px
    sizes = [16 * h * w, 4 * h * w, h * w, ceil(h / 2) * ceil(w / 2)]
    pixels = n * shape.height_px * shape.width_px
    reached = tuning.reaches_aggregator
    layers = [Layer(n * h * w, 2 * config.width, channel, input_grad=reached) for channel in channels]
    layers += [
        Layer(n * h * w, channels[0], 16 * channels[0], input_grad=True, adaptable=False),
        Layer(n * h * w, channels[1], 4 * channels[1], input_grad=True, adaptable=False),
        Layer(n * sizes[3], 9 * channels[3], channels[3]),
    ]
    for level, size in enumerate(sizes):
        residual_units = 1 if level == 3 else 2
        layers.append(Layer(n * size, 9 * channels[level], features))
        layers += [Layer(n * size, 9 * features, features)] * (2 * residual_units)
        layers.append(Layer(n * size, features, features))
    return [
        *layers,
        Layer(4 * n * sizes[0], 9 * features, features // 2),
        Layer(pixels, 9 * (features // 2), config.dpt_hidden),
        Layer(pixels, config.dpt_hidden, 2),
    ]
