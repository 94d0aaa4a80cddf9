"""The encoder against transformers' Dinov2WithRegistersModel, an implementation nobody here wrote."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from megasynth_train.vggt.config import VGGTConfig
from megasynth_train.vggt.encoder import Encoder

WIDTH, DEPTH, HEADS, REGISTERS = 48, 3, 4, 4
CONFIG = VGGTConfig(
    width=WIDTH, image_size_px=70, encoder_depth=DEPTH, encoder_heads=HEADS, heads=3, encoder_register_count=REGISTERS
)


def oracle_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights under the names of transformers 5."""
    renamed = {}
    for name, tensor in weights.items():
        if not name.startswith("blocks."):
            name = name.replace("patch_embed.proj.", "embeddings.patch_embeddings.projection.")
            name = name.replace("norm.", "layernorm.").replace("pos_embed", "embeddings.position_embeddings")
            renamed[f"embeddings.{name}" if name.endswith("token") or name.endswith("tokens") else name] = tensor
            continue
        _, index, rest = name.split(".", 2)
        prefix = f"encoder.layer.{index}."
        if rest.startswith("attn.qkv."):
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{prefix}attention.{part}_proj.{rest.removeprefix('attn.qkv.')}"] = rows
            continue
        for ours, theirs in (
            ("attn.proj.", "attention.o_proj."),
            ("ls1.gamma", "layer_scale1.lambda1"),
            ("ls2.gamma", "layer_scale2.lambda1"),
        ):
            rest = rest.replace(ours, theirs)
        renamed[prefix + rest] = tensor
    return renamed


@pytest.mark.parametrize("size", [(70, 70), (56, 84), (98, 42)], ids=["stored", "wide", "tall"])
def test_equal_tokens_and_gradients(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(5)
    ours = Encoder(CONFIG)
    with torch.no_grad():
        for weight in ours.parameters():
            weight.normal_(std=0.3, generator=generator)
    oracle = Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=WIDTH,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            mlp_ratio=4,
            image_size=70,
            patch_size=14,
            num_register_tokens=REGISTERS,
            layer_norm_eps=1e-6,
            use_swiglu_ffn=False,
        )
    ).eval()
    oracle.load_state_dict(oracle_names(ours.state_dict()), strict=True)
    images = torch.randn(2, 3, *size, generator=generator)
    found, expected = ours(images), oracle(images).last_hidden_state[:, 1 + REGISTERS :]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    probe = torch.randn(found.shape, generator=generator)
    (found * probe).sum().backward()
    (expected * probe).sum().backward()
    torch.testing.assert_close(ours.pos_embed.grad, oracle.embeddings.position_embeddings.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        ours.patch_embed.proj.weight.grad,
        oracle.embeddings.patch_embeddings.projection.weight.grad,
        rtol=1e-4,
        atol=1e-3,
    )
