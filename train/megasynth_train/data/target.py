"""The size at which images enter the network. Free of PyTorch."""

from __future__ import annotations

import math

from megasynth_attr.core.errors import ConfigError

PATCH_PX = 14  # of every named size: image sizes are multiples


def target_size(width_px: int, aspect: float, patch_px: int) -> tuple[int, int]:
    """Return (height, width): height = width × aspect, rounded down to whole patches, at least one.

    ConfigError for width 0, which stands for the model's own (``TrainSettings.resolved``).
    """
    if width_px <= 0:
        raise ConfigError("data.width_px=0 stands for the model's own width, which is not known here; give a width")
    patches = math.floor(round(width_px * aspect / patch_px, 6))  # 518 × 1.0 / 14 must stay 37
    return max(patches, 1) * patch_px, width_px
