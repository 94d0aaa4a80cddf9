"""What one step consists of: a pure function of (seed, step, rank, number of ranks) and the list of scenes.

No state is kept between steps, so workers may prepare any step, and a run that resumes at step k draws what the
uninterrupted one would have drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from megasynth_attr.core.ranges import Range
from megasynth_attr.core.streams import stream
from megasynth_train.data.colour import Jitter, draw_jitter, neutral_jitter
from megasynth_train.data.scene import TrainingScene
from megasynth_train.data.sizes import PATCH_PX, target_size
from megasynth_train.training.settings import DataSettings

STREAMS = "megasynth-train data 1"  # part of every stream's key: changing it changes every draw


@dataclass(frozen=True)
class StepPlan:
    """The draws of one step on one rank: B scenes of S views, all scaled to ``image_size_hw``.

    ``scenes``: B indices into the list of scenes; ``views``: S view indices of each, the first is the reference frame;
    ``crops`` [B, S, 2]: height and width of the crop relative to the image (1 is the cap, applied later);
    ``zooms`` [B, S]: additional zoom in target pixels.
    """

    step: int
    image_size_hw: tuple[int, int]
    scenes: tuple[int, ...]
    views: tuple[tuple[int, ...], ...]
    crops: np.ndarray
    zooms: np.ndarray
    jitter: Jitter


def available_views(scene: TrainingScene, settings: DataSettings) -> int:
    """Return how many views of ``scene`` are drawn from: every ``view_stride``-th, from the first."""
    return len(range(0, scene.view_count, settings.view_stride))


def usable_views(scenes: Sequence[TrainingScene], settings: DataSettings) -> Range[int]:
    """Return the range that the number of views per scene is drawn from.

    That is ``settings.views``, limited to ``images_per_step`` and, unless views may repeat, to the number of views of
    the shortest scene, so that every scene can give any number that is drawn.
    """
    most = settings.images_per_step
    if not settings.duplicate_views:
        most = min(most, *(available_views(scene, settings) for scene in scenes))
    return settings.views.at_most(most)


@dataclass(frozen=True)
class Sampling:
    """What the steps of process ``rank`` of ``world`` are drawn from.

    Validation (``training`` false) draws scenes and views as training does, but from its own streams, and with neither
    crop, zoom nor jitter; its images have the median aspect of the sources, clipped to ``settings.aspect``.
    """

    scenes: tuple[TrainingScene, ...]
    settings: DataSettings
    seed: int
    rank: int = 0
    world: int = 1
    training: bool = True

    def plan(self, step: int) -> StepPlan:
        """Return the draws of ``step``.

        All ranks share the number of views n, the number of scenes max(1, images_per_step // n) and the image size.
        Scenes come from one random permutation per step, in consecutive blocks of one per rank: distinct within a rank
        and, if there are enough scenes, over all ranks. Views are drawn without replacement unless
        ``duplicate_views``.
        """
        settings, common = self.settings, self._stream(step)
        view_count = usable_views(self.scenes, settings).draw(common)
        aspect = round(settings.aspect.draw(common), 2)
        if not self.training:
            sources = [scene.image_size_hw[0] / scene.image_size_hw[1] for scene in self.scenes]
            aspect = float(np.clip(np.median(sources), settings.aspect.low, settings.aspect.high))
        count = max(1, settings.images_per_step // view_count)
        order = common.permutation(len(self.scenes))
        chosen = order[(self.rank * count + np.arange(count)) % len(self.scenes)].tolist()

        own = self._stream(step, f"rank={self.rank}")
        views = tuple(self._draw_views(own, scene, view_count) for scene in chosen)
        crops, zooms, jitter = np.ones((count, view_count, 2)), np.zeros((count, view_count)), None
        if self.training and settings.augment:
            crops = settings.crop.draw(own, crops.shape)
            zooms = own.triangular(0, 0, 1, size=zooms.shape) * (settings.zoom * settings.width_px)
            jitter = draw_jitter(own, count, view_count, settings)
        size_hw = target_size(settings.width_px, aspect, PATCH_PX)
        return StepPlan(step, size_hw, tuple(chosen), views, crops, zooms, jitter or neutral_jitter(count, view_count))

    def replacement(self, plan: StepPlan, slot: int, unusable: Collection[int]) -> tuple[int, tuple[int, ...]] | None:
        """Return (scene, views) to take the place of the scene in ``slot``, or None if every scene is ``unusable``.

        ``unusable``: scenes that could not be read in this step. Scenes not yet in the step are preferred. Depends on
        the arguments alone.
        """
        left = [i for i in range(len(self.scenes)) if i not in unusable]
        fresh = [i for i in left if i not in plan.scenes]
        if not left:
            return None
        own = self._stream(plan.step, f"rank={self.rank}", f"slot={slot}", f"without={sorted(unusable)}")
        scene = int(own.choice(fresh or left))
        return scene, self._draw_views(own, scene, len(plan.views[slot]))

    def _draw_views(self, generator: np.random.Generator, scene: int, count: int) -> tuple[int, ...]:
        settings = self.settings
        drawn = generator.choice(available_views(self.scenes[scene], settings), count, replace=settings.duplicate_views)
        views = (settings.view_stride * drawn).tolist()
        return tuple(sorted(views) if settings.view_order == "path" else views)

    def _stream(self, step: int, *more: str) -> np.random.Generator:
        kind = "training" if self.training else "validation"
        return stream("|".join([STREAMS, f"seed={self.seed}", kind, f"step={step}", *more]))
