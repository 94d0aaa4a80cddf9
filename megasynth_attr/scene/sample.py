"""A scene from its settings and indices: every factor drawn from its own stream."""

from __future__ import annotations

import functools

from megasynth_attr.core.streams import Scope, stream, stream_key
from megasynth_attr.scene.config import Config
from megasynth_attr.scene.factor import Draw, Records, registered
from megasynth_attr.scene.spec import Scene


def sample_scene(config: Config, dataset_index: int, scene_index: int, records: Records) -> Scene:
    """Return scene ``scene_index`` of dataset ``dataset_index``; the same arguments always give the same scene.

    Factors are drawn in their order, except those that are off; each sees only those whose scope is at least as coarse
    as its own. Raises SceneRejected when a factor's constraints cannot be met, ConfigError when settings and
    ``records`` do not fit.
    """
    content = config.content
    key = functools.partial(
        stream_key, content.seed, attribute=content.attribute, dataset_index=dataset_index, scene_index=scene_index
    )
    drawn: dict[str, object] = {}
    for name, factor in registered().items():
        if (settings := config.factors.get(name)) is None:
            continue
        scope = Scope(settings.scope)
        visible = {n: data for n, data in drawn.items() if _is_visible(config, n, name)}
        dataset_scope = Scope.EXPERIMENT if scope is Scope.EXPERIMENT else Scope.DATASET
        draw = Draw(
            dataset_index=0 if scope is Scope.EXPERIMENT else dataset_index,
            dataset_count=content.dataset_count,
            frames=content.frames,
            configs=config.factors,
            visible=visible,
            dataset_rng=stream(key(f"{name} per dataset", dataset_scope)),
            records=records,
            turn=scene_index if scope is Scope.SCENE else scene_index % settings.variants,
        )
        drawn[name] = factor.sample(stream(key(name, scope, variants=settings.variants)), settings, draw)
    noise_rng = stream(key("noise", Scope(content.noise_scope)))
    return Scene(
        attribute=content.attribute,
        dataset_index=dataset_index,
        scene_index=scene_index,
        root_seed=content.seed,
        noise_seed=int(noise_rng.integers(2**30)),
        factors=drawn,
    )


def _is_visible(config: Config, other: str, name: str) -> bool:
    """Return whether factor ``name`` may look at ``other``: only if that cannot make it vary more often.

    Different numbers of variants do not line up, unless ``name`` has a multiple of the variants of ``other``.
    """
    mine, theirs = config.factors[name], config.factors[other]
    if Scope(mine.scope) is Scope.SCENE:
        return True
    return Scope(mine.scope).sees(Scope(theirs.scope)) and mine.variants % theirs.variants == 0
