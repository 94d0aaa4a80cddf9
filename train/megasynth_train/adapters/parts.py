"""The parts of a VGGT by parameter name: groups for gradient clipping and rows of the parameter table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

GROUPS = {"aggregator": "aggregator.", "camera": "camera_head.", "depth": "depth_head."}
LINEARS = ("qkv", "proj", "fc1", "fc2")
BLOCKS = {
    "aggregator.frame_blocks.": "aggregator, frame",
    "aggregator.global_blocks.": "aggregator, global",
    "aggregator.patch_embed.": "encoder",
    "aggregator.": "aggregator, tokens",
    "camera_head.": "camera head",
    "depth_head.": "depth head",
    "point_head.": "point head",
}


@dataclass(frozen=True)
class Row:
    """``parameters`` trained parameters of one kind in one part of the model, in ``tensors`` tensors."""

    part: str
    kind: str
    tensors: int
    parameters: int


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of ``model`` that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def groups(trainable: Mapping[str, nn.Parameter]) -> dict[str, list[nn.Parameter]]:
    """Return the trained parameters in the groups that are clipped together; groups without any are left out.

    Raises ValueError for a parameter that belongs to no part: it would be trained without clipping.
    """
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in trainable.items():
        group = next((group for group, prefix in GROUPS.items() if name.startswith(prefix)), None)
        if group is None:
            raise ValueError(f"{name} belongs to no group of {', '.join(GROUPS)}")
        found.setdefault(group, []).append(parameter)
    return {group: found[group] for group in GROUPS if group in found}


def parameter_rows(trainable: Mapping[str, nn.Parameter], free: Mapping[str, int] | None = None) -> tuple[Row, ...]:
    """Return the trained parameters by part and kind, in the order of the model's parameters.

    ``free``: how many entries are trained in tensors whose other entries are held at 0, by name.
    """
    free = free or {}
    tensors: Counter[tuple[str, str]] = Counter()
    parameters: Counter[tuple[str, str]] = Counter()
    for name, parameter in trainable.items():
        key = _part_and_kind(name)
        tensors[key] += 1
        parameters[key] += free.get(name, parameter.numel())
    return tuple(Row(*key, tensors[key], parameters[key]) for key in tensors)


def _part_and_kind(name: str) -> tuple[str, str]:
    part = next((part for prefix, part in BLOCKS.items() if name.startswith(prefix)), "other")
    if part == "aggregator, tokens":
        return "aggregator", "tokens"
    pieces = name.split(".")
    # the depth head's "projects" and the encoder's patch projection are not linears of a block
    linear = next((piece for piece in pieces if piece in LINEARS and {"attn", "mlp"} & set(pieces)), None)
    if linear is not None:
        return part, linear
    if ("norm" in name and "modulation" not in name) or ".ls1." in name or ".ls2." in name:
        return part, "norms and scales"
    return part, "convolutions" if part in ("depth head", "point head") else "other"
