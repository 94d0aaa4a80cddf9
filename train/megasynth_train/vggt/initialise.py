"""Random weights, for training from scratch and for measuring cost without a checkpoint."""

from __future__ import annotations

import torch
from torch import nn

from megasynth_train.vggt.block import LayerScale
from megasynth_train.vggt.config import VGGTConfig
from megasynth_train.vggt.model import VGGT

# Of the last layers of depth, points and poses: an untrained model predicts a depth near 1 for every pixel.
_LAST_STD = 0.01


def random_model(config: VGGTConfig, seed: int, device: torch.device | str = "cpu") -> VGGT:
    """Return a model whose weights depend on ``config``, ``seed`` and the kind of ``device`` only.

    Linears are Xavier normal (std 0.022 at width 1024), convolutions normal by their inputs, norms the identity,
    LayerScale and tokens as ``config`` says. Depth starts at 1, the mean distance in a normalised scene; cameras at
    the identity with fields of view of 1 rad, so that the ReLU on them lets gradients through. The global random
    state is neither read nor changed.
    """
    with torch.device("meta"):
        model = VGGT(config)
    model.to_empty(device=device)
    generator = torch.Generator(device=device).manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            _fill(module, generator)
        _fill_tokens(model, generator)
        _fill_ends(model, generator)
    return model


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """Fill the weights that belong to this layer itself."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight, generator=generator)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        inputs = module.in_channels
        if isinstance(module, nn.Conv2d):  # in a transposed one, every output sees each input channel once
            inputs *= module.kernel_size[0] * module.kernel_size[1]
        module.weight.normal_(std=inputs**-0.5, generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def _fill_tokens(model: VGGT, generator: torch.Generator) -> None:
    """Fill LayerScales and everything that is a parameter of its own."""
    config, encoder = model.config, model.aggregator.patch_embed
    for name, module in model.named_modules():
        if isinstance(module, LayerScale):
            in_encoder = name.startswith("aggregator.patch_embed.")
            module.gamma.fill_(config.encoder_layer_scale if in_encoder else config.layer_scale)
    encoder.mask_token.zero_()
    encoder.pos_embed.normal_(std=0.02, generator=generator)
    for token in (
        encoder.cls_token,
        encoder.register_tokens,
        model.aggregator.camera_token,
        model.aggregator.register_token,
    ):
        token.normal_(std=config.token_std, generator=generator)


def _fill_ends(model: VGGT, generator: torch.Generator) -> None:
    """Fill the last layers so that an untrained model predicts values of about the right size."""
    for head in (model.depth_head, model.point_head):
        if head is not None:
            last_weight = head.scratch.output_conv2.get_parameter("2.weight")
            last_weight.normal_(std=_LAST_STD, generator=generator)
    if model.camera_head is not None:
        model.camera_head.empty_pose_tokens.zero_()
        last = model.camera_head.pose_branch.fc2
        last.weight.normal_(std=_LAST_STD, generator=generator)
        last.bias.zero_()
        # w of the quaternion xyzw, and 1 rad for both fields of view; each iteration adds its share
        last.bias[6:] = 1 / model.camera_head.iterations
