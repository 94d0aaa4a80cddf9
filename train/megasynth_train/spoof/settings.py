"""All keys of ``python -m megasynth_train.spoof``."""

from __future__ import annotations

from dataclasses import dataclass, field

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import setting, shared_values
from megasynth_train.evaluate.options import EvaluateSettings
from megasynth_train.evaluate.protocols import PROTOCOLS
from megasynth_train.training.settings import ModelSettings


@dataclass(frozen=True)
class SpoofSettings:
    """Which scenes are compared, by which models, and what is written."""

    printed: tuple[str, ...] = setting((), "folders of printed faces, of preset spoof_plane", literal=True)
    real: tuple[str, ...] = setting((), "folders of real heads, of preset spoof_heads or photographed", literal=True)
    out: str = setting("", "output folder; an older result in it is replaced when the new one is complete")
    comparison: str = setting(
        "", "folder of megasynth_train.compare: every finished run is measured; empty: the one model given"
    )
    adapter: str = setting("", "without comparison: folder of a trained adapter; empty: the base model itself")
    basis: str = setting("", "adapters of mode=subspace: file of their basis, if it was moved since training")
    views: int = setting(
        PROTOCOLS["spoof_plane"].views, "views per scene, evenly spaced; fewer if the scene has fewer", minimum=1
    )
    width_px: int = setting(
        0, "width of the network's input, a multiple of the patch size; 0: the model's own", minimum=0
    )
    max_scenes: int = setting(0, "at most this many scenes of each class, the first by name; 0: all", minimum=0)
    pixel_centre: float = setting(
        0.5, "coordinate of the first pixel's centre: 0.5, or 0 for the public checkpoint", minimum=0, maximum=0.5
    )
    page: bool = setting(True, "write index.html with the point clouds of both classes, which needs jinja2")
    page_scenes: int = setting(6, "pairs of scenes on the page, of the first run", minimum=1)
    device: str = setting("auto", "auto: CUDA if available", options=["auto", "cpu", "cuda"])
    threads: int = setting(0, "CPU threads; 0: all", minimum=0)
    progress: bool = setting(True, "progress bar")
    model: ModelSettings = field(default_factory=ModelSettings)

    def check(self) -> None:
        """Raise ConfigError for keys that are missing or exclude each other."""
        for key, example in (("printed", "runs/spoof/spoof_plane_00"), ("real", "runs/heads/spoof_heads_00")):
            if not getattr(self, key):
                raise ConfigError(f"{key}= is missing: name folders of {key} faces, e.g. {key}={example}")
        if not self.out:
            raise ConfigError("out= is missing: name the output folder, e.g. out=runs/spoof_test")
        if self.comparison and (self.adapter or self.model.checkpoint):
            raise ConfigError("comparison= brings its own base model and adapters; leave out adapter= and checkpoint=")

    def of_class(self, folders: tuple[str, ...]) -> EvaluateSettings:
        """Return how the scenes of one class are evaluated, by the model of these settings."""
        return EvaluateSettings(data=folders, **shared_values(EvaluateSettings, self))
