"""The size at which images enter the network, and checks of ``data`` settings against it. Free of PyTorch."""

from __future__ import annotations

import math

from megasynth_attr.core.errors import ConfigError
from megasynth_train.training.settings import DataSettings

PATCH_PX = 14  # of every named size: image sizes are multiples


def target_size(width_px: int, aspect: float, patch_px: int) -> tuple[int, int]:
    """Return (height, width): height = width × aspect, rounded down to whole patches, at least one.

    ConfigError for width 0, which stands for the model's own (``TrainSettings.training``).
    """
    if width_px <= 0:
        raise ConfigError("data.width_px=0 stands for the model's own width, which is not known here; give a width")
    patches = math.floor(round(width_px * aspect / patch_px, 6))  # 518 × 1.0 / 14 must stay 37
    return max(patches, 1) * patch_px, width_px


def check_settings(settings: DataSettings) -> None:
    """Raise ConfigError for values that contradict each other or the network's patches."""
    check_width("data.width_px", settings.width_px)
    if settings.views.low > settings.images_per_step:
        raise ConfigError(
            f"data.images_per_step={settings.images_per_step} is less than the {settings.views.low} views of a single "
            f"scene that data.views={settings.views.plain()} asks for"
        )


def check_width(key: str, width_px: int, patch_px: int = PATCH_PX) -> None:
    """Raise ConfigError, naming the two nearest widths, for a ``width_px`` that is not a whole number of patches."""
    if width_px % patch_px:
        low = max(width_px // patch_px, 1) * patch_px
        raise ConfigError(
            f"{key}={width_px} is not a multiple of the patch size {patch_px}: use {low} or {low + patch_px}"
        )
