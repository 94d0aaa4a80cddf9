"""Values of the section ``data`` that contradict each other or the network's patches. Free of PyTorch."""

from __future__ import annotations

from megasynth_attr.core.errors import ConfigError
from megasynth_train.data.target import PATCH_PX
from megasynth_train.training.settings import DataSettings


def check_settings(settings: DataSettings) -> None:
    """Raise ConfigError for values that contradict each other or the network's patches."""
    check_width("data.width_px", settings.width_px)
    if settings.views.low > settings.images_per_step:
        raise ConfigError(
            f"data.images_per_step={settings.images_per_step} is less than the {settings.views.low} views of a single "
            f"scene that data.views={settings.views.plain()} asks for"
        )


def check_width(key: str, width_px: int, patch_px: int = PATCH_PX) -> None:
    """Raise ConfigError, naming the two nearest widths, for a ``width_px`` that is no whole number of patches."""
    if width_px % patch_px:
        low = max(width_px // patch_px, 1) * patch_px
        raise ConfigError(
            f"{key}={width_px} is no multiple of the patch size {patch_px}: use {low} or {low + patch_px}"
        )
