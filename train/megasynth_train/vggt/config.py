"""Every size of a VGGT, and the named ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

import yaml

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.resources import resource_dir

ATTENTION_KERNELS = ("auto", "sdpa", "cudnn", "flash", "fa3", "fa4")  # that attention.py can call
KEPT = EVERYTHING, ATTENTION, NOTHING = ("everything", "attention", "nothing")  # of a block, for the backward pass
HEAD_FRAMES = 8  # that a dense head computes at once without gradients or again: a map of one of 518 px takes 137 MB
HEADS = ("camera_head", "depth_head", "point_head")  # that a model may have or lack
_MAY_BE_0 = ("register_count", "encoder_register_count", "encoder_layer_scale", "layer_scale", "token_std")


@dataclass(frozen=True)
class VGGTConfig:
    """All sizes of a model; the defaults are those of the published VGGT-1B.

    Raises ConfigError if sizes do not fit each other. Only ``initialise.random_model`` uses ``encoder_layer_scale``,
    ``layer_scale`` and ``token_std``; they are recorded, and ignored when weights are loaded.
    """

    width: int = 1024  # channels of encoder and aggregator; the heads see twice as many (frame and global tokens)
    patch_size_px: int = 14
    image_size_px: int = 518  # side of the square image the encoder's position embedding is stored for
    register_count: int = 4  # register tokens of the aggregator, besides the camera token
    encoder_depth: int = 24
    encoder_heads: int = 16
    encoder_register_count: int = 4
    depth: int = 24  # pairs of a frame block and a global block
    heads: int = 16
    mlp_ratio: float = 4.0
    rope_base: float = 100.0
    taps: tuple[int, ...] = (4, 11, 17, 23)  # pairs whose tokens the heads see; the camera head sees the last
    camera_depth: int = 4
    camera_heads: int = 16
    camera_iterations: int = 4
    dpt_channels: tuple[int, ...] = (256, 512, 1024, 1024)  # per tap
    dpt_features: int = 256
    dpt_hidden: int = 32
    camera_head: bool = True
    depth_head: bool = True
    point_head: bool = True
    encoder_layer_scale: float = 1.0  # initial gammas of the encoder
    layer_scale: float = 0.01  # initial gammas of aggregator and camera trunk
    token_std: float = 1e-6  # initial spread of cls, camera and register tokens

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", tuple(self.taps))
        object.__setattr__(self, "dpt_channels", tuple(self.dpt_channels))
        for name, number in asdict(self).items():
            if isinstance(number, tuple | bool):
                continue
            if not (number >= 0 if name in _MAY_BE_0 else number > 0):
                at_least = "not be negative" if name in _MAY_BE_0 else "be greater than 0"
                raise ConfigError(f"model: {name} is {number}; it must {at_least}")
        for problem in self._misfits():
            raise ConfigError(f"model: {problem}")

    def _misfits(self) -> list[str]:
        """Return one sentence for each pair of sizes that do not fit together."""
        found = []
        if self.image_size_px % self.patch_size_px:
            found.append(f"image_size_px {self.image_size_px} is not a multiple of patch_size_px {self.patch_size_px}")
        if self.width % (4 * self.heads):
            found.append(
                f"width {self.width} over {self.heads} heads is not a multiple of 4, which the rotary positions need"
            )
        if self.width % self.encoder_heads:
            found.append(f"width {self.width} is not a multiple of encoder_heads {self.encoder_heads}")
        if 2 * self.width % self.camera_heads:
            found.append(f"twice the width {self.width} is not a multiple of camera_heads {self.camera_heads}")
        if len(self.taps) != 4 or list(self.taps) != sorted(set(self.taps)) or not 0 <= self.taps[0] <= self.last_tap:
            found.append(f"taps {self.taps} must be four increasing pair numbers from 0")
        elif self.last_tap >= self.depth:
            found.append(f"taps {self.taps} name a pair beyond depth {self.depth} (pairs count from 0)")
        if len(self.dpt_channels) != 4 or any(channels < 4 or channels % 4 for channels in self.dpt_channels):
            found.append(f"dpt_channels {self.dpt_channels} must be four multiples of 4, which the position maps need")
        if self.dpt_features % 8:
            found.append(f"dpt_features {self.dpt_features} must be a multiple of 8, which the position map needs")
        if int(self.width * self.mlp_ratio) != self.width * self.mlp_ratio:
            found.append(f"mlp_ratio {self.mlp_ratio} × width {self.width} is not whole")
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """Return the size ``name``, or ``default`` if there is none: PEFT asks a model's configuration like a dict."""
        return getattr(self, name, default)

    @property
    def last_tap(self) -> int:
        """Return the last pair a head sees."""
        return self.taps[-1]

    @property
    def special_count(self) -> int:
        """Return how many tokens of a frame come before its patches: one camera token and the registers."""
        return 1 + self.register_count


def config_from_record(record: Mapping[str, Any]) -> VGGTConfig:
    """Return the config of a record written from ``dataclasses.asdict``; ConfigError for unknown keys or misfits."""
    known = {field.name for field in fields(VGGTConfig)}
    if unknown := sorted(set(record) - known):
        raise ConfigError(
            f"model: unknown size {unknown[0]!r}, written by a newer version? The sizes are {', '.join(sorted(known))}"
        )
    return VGGTConfig(**record)


def _named_sizes() -> Mapping[str, VGGTConfig]:
    named = yaml.safe_load((resource_dir("assets") / "models" / "sizes.yaml").read_text(encoding="utf-8"))
    return MappingProxyType({name: config_from_record(sizes) for name, sizes in named.items()})


SIZES = _named_sizes()


def named_config(name: str, **changes: Any) -> VGGTConfig:
    """Return the named size with some fields changed; ConfigError for an unknown name or field."""
    if name not in SIZES:
        raise ConfigError(f"model.size {name!r} is unknown; the sizes are {', '.join(SIZES)}")
    return config_from_record(asdict(SIZES[name]) | changes)
