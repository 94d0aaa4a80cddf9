"""Tables that depend on shapes only: rotary positions and the heads' position maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

Tables = TypeVar("Tables", bound=tuple[Tensor, ...])


class TableCache:
    """Tensors by the arguments they are made from, made on first use and kept by the module that owns the cache.

    Not buffers: there is one table per shape met, none belongs in a state dict, and DDP need not broadcast them. A
    copy or a pickle of the module starts empty.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[Any, ...], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_tables": {}}

    def get(self, make: Callable[..., Tables], *arguments: Any) -> Tables:
        """Return ``make(*arguments)``, made once; the last argument is the device. Compiled code makes its own."""
        if torch.compiler.is_compiling():
            return make(*arguments)
        tables: Tables | None = self._tables.get((make, arguments))
        if tables is None:
            # Ordinary tensors even under inference_mode, whose own tensors cannot be used in training.
            with torch.inference_mode(False), torch.no_grad():
                tables = make(*arguments)
            if all(type(table) is Tensor for table in tables):  # a tracer's fake tensors die with the trace
                self._tables[make, arguments] = tables
        return tables


class Rotation(NamedTuple):
    """Cosine and signed sine of every token of a frame and every channel of a head, each [tokens, 1, head_dim]."""

    cos: Tensor
    sin: Tensor


def grid_rotation(
    rows: int, columns: int, special_count: int, head_dim: int, base: float, device: torch.device
) -> Rotation:
    """Return the rotation of a frame's tokens: special ones at (0, 0), i.e. unrotated, patch (r, c) at (r+1, c+1)."""
    row = torch.arange(1, rows + 1, device=device).repeat_interleave(columns, output_size=rows * columns)
    column = torch.arange(1, columns + 1, device=device).repeat(rows)
    patches = torch.stack((row, column), dim=-1)
    return rotation_of(torch.cat((patches.new_zeros(special_count, 2), patches)), head_dim, base)


def rotation_of(positions: Tensor, head_dim: int, base: float) -> Rotation:
    """Return the rotation of tokens at integer ``positions`` [tokens, 2] (row, column).

    The first half of a head's channels turns with the row, the second with the column. In a half of D channels,
    channel j is paired with j + D/2 and turns by position × base^(-2j/D).
    """
    half = head_dim // 2
    exponents = torch.arange(half // 2, device=positions.device, dtype=torch.float64) * (-2.0 / half)
    angles = positions.double().unsqueeze(-1) * base**exponents  # [tokens, 2, D/2]
    cos, sin = angles.cos(), angles.sin()
    cos = torch.stack((cos, cos), dim=-2)  # [tokens, 2 axes, 2 partners, D/2]
    sin = torch.stack((-sin, sin), dim=-2)
    return Rotation(cos.flatten(1).unsqueeze(1).float(), sin.flatten(1).unsqueeze(1).float())


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Return queries or keys [..., tokens, heads, head_dim] of images turned by their tokens' positions."""
    return torch.addcmul(heads * rotation.cos, partners(heads), rotation.sin)


def partners(heads: Tensor) -> Tensor:
    """Return ``heads`` [..., head_dim] with every channel in the place of the one that it turns with."""
    return heads.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)


def map_coordinates(width: int, height: int, aspect: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x [width] and y [height] (float64) of a map's cells: the image's half diagonal is 1, the centre is 0.

    ``aspect`` is width / height of the *image*; the map's own sides only set the number of cells.
    """
    diagonal = (aspect * aspect + 1.0) ** 0.5
    x_end = aspect / diagonal * (width - 1) / width
    y_end = 1.0 / diagonal * (height - 1) / height
    x = torch.linspace(-x_end, x_end, width, dtype=torch.float64, device=device)
    y = torch.linspace(-y_end, y_end, height, dtype=torch.float64, device=device)
    return x, y


def map_parts(
    width: int, height: int, aspect: float, channels: int, base: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the two parts of a position map: x waves [width, channels / 2] and y waves [height, channels / 2].

    Each is (sines, cosines) of coordinate × base^(-k / (channels / 4)). The whole map, [height, width, channels], is
    never kept: at 518 px it takes 137 MB, the parts half a megabyte.
    """
    count = channels // 4
    exponents = torch.arange(count, dtype=torch.float64, device=device) * (-1.0 / count)
    parts = []
    for coordinates in map_coordinates(width, height, aspect, device):
        angles = coordinates.unsqueeze(-1) * base**exponents
        parts.append(torch.cat((angles.sin(), angles.cos()), dim=-1).float())
    return parts[0], parts[1]


def bilinear_matrix(target: int, source: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return [target, source]: linear interpolation of ``source`` values at ``target`` places, the ends on the ends.

    For bfloat16 places are rounded to 1/256 of a pixel, so that the two weights of a row are exact and sum to 1. Rows
    are padded in memory to a multiple of 8 values, which fast matrix products need.
    """
    step = (source - 1) / max(target - 1, 1)
    places = torch.arange(target, dtype=torch.float64, device=device) * step
    if dtype == torch.bfloat16:
        places = (places * 256).round() / 256
    padded = torch.arange(-(-source // 8) * 8, dtype=torch.float64, device=device)
    weights = (1 - (places.unsqueeze(-1) - padded).abs()).clamp_min(0).to(dtype)
    return weights[:, :source]


def whole_map(x_part: Tensor, y_part: Tensor) -> Tensor:
    """Return the map [channels, height, width] of two parts, channels last in memory as the features are."""
    height, width = y_part.shape[0], x_part.shape[0]
    cells = torch.cat((x_part.expand(height, -1, -1), y_part.unsqueeze(1).expand(-1, width, -1)), dim=-1)
    return cells.permute(2, 0, 1)
