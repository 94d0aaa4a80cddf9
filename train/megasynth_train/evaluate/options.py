"""All keys of ``python -m megasynth_train.evaluate``."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TypeVar

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import setting
from megasynth_train.evaluate.protocols import NONE, PROTOCOLS, fixed_by
from megasynth_train.training.settings import (
    ModelSettings,
    depth_unit_setting,
    format_setting,
    scaled_rotation_setting,
)  # fmt: skip

Measure = TypeVar("Measure", bound="MeasureSettings")
SPLITS = ("all", "validation", "training")
MIN_POINTS = 100  # fewer are not enough to judge a scene


@dataclass(frozen=True)
class MeasureSettings:
    """What is evaluated, on which scenes and views, and what is drawn."""

    data: tuple[str, ...] = setting(
        (),
        "folders: datasets, experiments, or scenes in another layout (docs/own-data.md)",
        short="test",
        literal=True,
        identity=False,
    )
    protocol: str = setting(
        NONE,
        "the paper's evaluation of a task: it fixes split, scenes, max_scenes, views, stride, view_ids, icp_distance "
        "and max_points, chooses the test scenes, and adds the paper's columns (docs/downstream.md)",
        options=[NONE, *PROTOCOLS],
        added=True,
    )
    format: str = format_setting()
    depth_unit: float = depth_unit_setting()
    scaled_rotation: bool = scaled_rotation_setting()
    basis: str = setting("", "adapters of mode=subspace: file of their basis, if it was moved since training")
    split: str = setting("all", "which scenes: all, or one side of training's split", options=SPLITS)
    validation_share: float = setting(
        0.1, "share held out in training, for split=validation or training", minimum=0, maximum=0.9
    )
    scenes: str = setting("all", "scenes of each source by number: all, 0-9, 0,3,7")
    max_scenes: int = setting(0, "evaluate at most this many scenes, the first by name; 0: all", minimum=0)
    views: int = setting(
        8, "views per scene, evenly spaced, the first is the reference; fewer if the scene has fewer", minimum=1
    )
    stride: int = setting(0, "take every n-th view instead of evenly spaced ones, at most `views`; 0: off", minimum=0)
    view_ids: tuple[int, ...] = setting((), "exactly these views, the first is the reference", minimum=0)
    width_px: int = setting(
        0, "width of the network's input, a multiple of the patch size; 0: the model's own", minimum=0
    )
    pixel_centre: float = setting(
        0.5,
        "coordinate of the first pixel's centre when depth becomes points: 0.5, or 0 for the public checkpoint",
        minimum=0,
        maximum=0.5,
    )
    icp_distance: float = setting(0.1, "largest distance of a pair in ICP, in scene units", minimum=0)
    max_points: int = setting(
        0,
        "compare at most this many points per scene, 100 or more (the same random sample of both clouds); 0: all",
        minimum=0,
    )
    pictures: bool = setting(True, "draw pictures/<scene>.png, which needs matplotlib", identity=False)
    page: bool = setting(
        True, "write index.html, the interactive page of the point clouds, which needs jinja2", identity=False
    )
    page_scenes: int = setting(12, "scenes on the page, the first evaluated ones", minimum=1, identity=False)

    def settled(self: Measure, named: Collection[str], prefix: str) -> Measure:
        """Return the settings with what the protocol fixes; ConfigError if a key that was named contradicts it.

        ``core/command/settings.py`` calls this with the keys that were given, and what stands before them.
        """
        if self.protocol not in PROTOCOLS:  # none, or a word that the check of options refuses
            return self
        return replace(self, **fixed_by(self.protocol, vars(self), named, prefix))

    def check(self) -> None:
        """Raise ConfigError for keys that are missing, unusable or mutually exclusive."""
        if self.protocol in PROTOCOLS:
            PROTOCOLS[self.protocol].require(vars(self))
        if not self.data:
            raise ConfigError("data= is missing: name the folders of datasets, e.g. data=runs/demo/texture_00")
        if self.stride and self.view_ids:
            raise ConfigError("stride= and view_ids= exclude each other: give one of them")
        if len(set(self.view_ids)) < len(self.view_ids):
            raise ConfigError(f"view_ids={list(self.view_ids)} names a view twice")
        if 0 < self.max_points < MIN_POINTS:
            raise ConfigError(f"max_points={self.max_points} is too few: use {MIN_POINTS} or more, or 0 for all")
        if self.icp_distance == 0:
            raise ConfigError("icp_distance=0 finds no pairs; give a distance in scene units, e.g. 0.1")


@dataclass(frozen=True)
class EvaluateSettings(MeasureSettings):
    """What is evaluated, on which scenes and views, and what is written."""

    out: str = setting("", "output folder; an older evaluation in it is replaced when the new one is complete")
    adapter: str = setting("", "folder of a trained adapter (or of mode=full); empty: the base model itself")
    device: str = setting("auto", "auto: CUDA if available", options=["auto", "cpu", "cuda"])
    threads: int = setting(0, "CPU threads; 0: all", minimum=0)
    progress: bool = setting(True, "progress bar")
    model: ModelSettings = field(default_factory=ModelSettings)

    def check(self) -> None:
        """Raise ConfigError for keys that are missing, unusable or mutually exclusive."""
        super().check()
        if not self.out:
            raise ConfigError("out= is missing: name the output folder, e.g. out=runs/evaluation")

    @property
    def workers(self) -> int:
        """Return SciPy's number of threads: -1 for all."""
        return self.threads or -1
