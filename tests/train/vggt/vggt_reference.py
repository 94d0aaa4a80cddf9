"""The reference implementation's small model: its sizes, weights, inputs and outputs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from megasynth_train.vggt.config import VGGTConfig
from megasynth_train.vggt.model import VGGT

FIXTURES = Path(__file__).parents[2] / "fixtures"
CONFIG = VGGTConfig(
    width=32,
    image_size_px=70,
    encoder_depth=2,
    encoder_heads=2,
    depth=4,
    heads=2,
    taps=(0, 1, 2, 3),
    camera_depth=2,
    camera_heads=4,
    dpt_channels=(8, 16, 32, 32),
    dpt_features=16,
    point_head=False,
)


@cache
def fixture(name: str) -> dict[str, Tensor]:
    """Return the tensors of a fixture; do not change them."""
    return load_file(FIXTURES / f"{name}.safetensors")


def reference_model() -> VGGT:
    """Return a new model with the reference's weights."""
    model = VGGT(CONFIG)
    model.load_state_dict({name: tensor.clone() for name, tensor in fixture("tiny_model_state").items()}, strict=True)
    return model


def reference_images(case: str) -> Tensor:
    """Return the images of "native" (70×70) or "interp" (56×84), float [B, S, 3, H, W]."""
    return fixture("tiny_model_io")[f"{case}.images_u8"].float() / 255
