"""A model of three layers and adapters in a basis for it; importable without this project's training half."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAYERS = ("first", "second")  # those in the toy basis; conv and last are outside


class Toy(nn.Module):
    """Images (b, 3, 4, 4) → conv → two linears with a kink between → b × 3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first = nn.Conv2d(3, 2, 3, padding=1), nn.Linear(32, 12)
        self.second, self.last = nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.second(self.first(self.conv(x).flatten(1)).relu()))
        return found


def toy(seed: int = 0) -> Toy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Toy()


def inputs(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
