"""Which scenes a run trains on: found in folders, checked, and split into training and validation.

The split looks at each scene alone: SHA-256 of its identity, as a number in [0, 1), below ``validation_share``. So it
depends neither on paths nor on other scenes; a dataset that grows keeps every scene on its side, and a copy of a scene
falls on the same side as the original. In return, the share is met only on average.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import json_bytes
from megasynth_attr.core.selection import parse_indices
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.paths import RENDER_REST
from megasynth_attr.dataset.reader import Dataset, open_dataset, open_experiment
from megasynth_train.data.agreement import agreement, doubt, pairs_of, reach_of, sample_frames
from megasynth_train.data.cache import check_cache
from megasynth_train.data.layouts.choose import LAYOUTS, choose
from megasynth_train.data.layouts.names import OURS
from megasynth_train.data.layouts.view import Reading
from megasynth_train.data.plan import available_views, usable_views
from megasynth_train.data.scene import BadScene, TrainingScene, left_out, our_scene, outside_scene
from megasynth_train.data.sizes import check_settings
from megasynth_train.training.settings import DataSettings

_CHECKED_VIEWS = 3  # and their neighbours, in one scene of a source
_Named = tuple[str, Callable[[], TrainingScene]]  # a scene's name, and what reads it


@dataclass(frozen=True)
class TrainingData:
    """Scenes sorted by name. ``fingerprint`` identifies their content, wherever they are stored.

    ``notes``: messages for the user.
    """

    train: tuple[TrainingScene, ...]
    validation: tuple[TrainingScene, ...]
    fingerprint: str
    unreadable: tuple[BadScene, ...] = ()
    notes: tuple[str, ...] = ()


def open_sources(settings: DataSettings) -> TrainingData:
    """Return the scenes of all ``settings.sources``, split.

    A source is a dataset of ours, an experiment of them, or a folder in another layout (``layouts/choose.py``).
    Scenes with fewer views than the least of ``settings.views`` are left out and counted in ``notes`` (kept with
    ``duplicate_views``).
    Raises ConfigError for settings that cannot be met, DatasetError for a source without complete scenes or, unless
    ``on_bad_file`` is "skip", with a damaged one.
    """
    check_settings(settings)
    if not settings.sources:
        raise ConfigError("data= is missing: name the folders of datasets, e.g. data=runs/demo/texture_00")
    check_cache(settings)
    roots = [Path(source).resolve() for source in settings.sources]
    scenes: list[TrainingScene] = []
    bad: list[BadScene] = []
    fingerprints: list[str] = []
    notes: list[str] = []
    for root in roots:
        source = open_source(root, settings)
        read = _all_read(source.named, settings.on_bad_file == "skip", bad)
        if source.layout != OURS and read:
            notes += [f"{root}: left out: {what}" for what in left_out(read)] + _checked(read[0])
        scenes += read
        fingerprints += source.fingerprints
        notes += source.notes
    _refuse_twice(scenes)
    usable = [s for s in scenes if settings.duplicate_views or available_views(s, settings) >= settings.views.low]
    if short := len(scenes) - len(usable):
        notes.append(f"{short} of {len(scenes)} scenes have fewer than {settings.views.low} views and are left out")
    if not usable:
        longest = max((available_views(s, settings) for s in scenes), default=0)
        raise DatasetError(
            f"no usable scene in {', '.join(map(str, roots))}: the longest has {longest} views, "
            f"data.views={settings.views.plain()} asks for {settings.views.low}; {_first(bad)}"
        )
    usable.sort(key=lambda scene: (scene.name, scene.digest))
    train, validation = split(usable, settings.validation_share)
    if not train:
        raise ConfigError(
            f"all {len(usable)} scenes fall into the validation share; lower data.validation_share (0: no validation)"
        )
    if settings.validation_share > 0 and not validation:
        notes.append(
            f"none of the {len(usable)} scenes falls into data.validation_share={settings.validation_share:g}: "
            "nothing is validated; add scenes or raise the share"
        )
    notes += _notes_on_views(train, settings)
    widest_px = max(scene.image_size_hw[1] for scene in usable)
    if settings.width_px > widest_px:
        notes.append(
            f"images of at most {widest_px} px are enlarged to data.width_px={settings.width_px}; "
            "that costs time and adds nothing"
        )
    record = [sorted(fingerprints), sorted((s.identity, s.digest) for s in usable)]
    fingerprint = hashlib.sha256(json_bytes({"data": record})).hexdigest()
    return TrainingData(train, validation, fingerprint, tuple(bad), tuple(notes))


def split(
    scenes: Iterable[TrainingScene], validation_share: float
) -> tuple[tuple[TrainingScene, ...], tuple[TrainingScene, ...]]:
    """Return (training, validation) scenes, each in the order given."""
    sides: tuple[list[TrainingScene], list[TrainingScene]] = ([], [])
    for scene in scenes:
        digest = hashlib.sha256(f"validation|{scene.identity}".encode()).digest()
        sides[int.from_bytes(digest[:8], "big") < validation_share * 2**64].append(scene)
    return tuple(sides[0]), tuple(sides[1])


@dataclass(frozen=True)
class Source:
    """One folder of ``data=``: the scenes chosen in it, not yet read, fingerprints of our datasets, notes for the user.

    ``title``: its layout in words.
    """

    title: str
    layout: str
    named: tuple[_Named, ...]
    fingerprints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def open_source(root: Path, settings: DataSettings, needs_depth: bool = True) -> Source:
    """Return what a folder holds; ConfigError for a selection, DatasetError for a folder, that cannot be used."""
    found = choose(root, settings.format)
    if found.layout != OURS:
        reading = Reading(settings.depth_unit, settings.scaled_rotation, needs_depth)
        chosen = parse_indices(settings.scenes, len(found.folders), "data.scenes")
        layout = LAYOUTS[found.layout]
        named = tuple(_outside(found.layout, found.folders[i], reading) for i in chosen)
        return Source(f"{layout.title} ({layout.marker})", found.layout, named)
    datasets = [open_dataset(root)] if (root / paths.DATASET_FILE).is_file() else open_experiment(root)
    notes: list[str] = []
    named = tuple(scene for dataset in datasets for scene in _scenes_of(dataset, settings, notes))
    fingerprints = tuple(str(dataset.record.get("fingerprint", "")) for dataset in datasets)
    return Source(f"ours ({paths.DATASET_FILE})", OURS, named, fingerprints, tuple(notes))


def _outside(layout: str, folder: Path, reading: Reading) -> _Named:
    return f"{folder.parent.name}/{folder.name}", partial(outside_scene, layout, folder, reading)


def _scenes_of(dataset: Dataset, settings: DataSettings, notes: list[str]) -> list[_Named]:
    wanted = set(parse_indices(settings.scenes, dataset.scene_count, "data.scenes"))
    scenes = [scene for scene in dataset.scenes if scene.index in wanted]
    if not scenes:
        raise DatasetError(f"{dataset.path} has no complete scene (data.scenes={settings.scenes}); {RENDER_REST}")
    if len(scenes) < len(wanted):
        notes.append(f"{dataset.path} is incomplete: {len(scenes)} of {len(wanted)} scenes; {RENDER_REST}")
    names = [f"{dataset.path.name}/{scene.name}" for scene in scenes]
    return [(name, partial(our_scene, name, scene.path)) for name, scene in zip(names, scenes, strict=True)]


def _all_read(named: Iterable[_Named], skip: bool, bad: list[BadScene]) -> list[TrainingScene]:
    """Return the scenes; those that cannot be read go to ``bad`` (``skip``) or raise DatasetError."""
    scenes = []
    for name, read in named:
        try:
            scenes.append(read())
        except DatasetError as error:
            if not skip:
                raise DatasetError(f"{error} (data.on_bad_file=skip trains without such scenes)") from error
            bad.append(BadScene(name, str(error)))
    return scenes


def _checked(scene: TrainingScene) -> list[str]:
    """Return notes on a scene of another layout; DatasetError if its cameras and depth cannot both be right.

    One scene stands for its source: a mistake in the conventions is in all of them.
    """
    try:
        frames = sample_frames(scene, _CHECKED_VIEWS)
    except DatasetError:  # a damaged file: reading it for a step will say so, or leave the scene out
        return []
    known = np.concatenate([frame.depth_z[frame.depth_z > 0] for frame in frames])
    if len(known) == 0:
        raise DatasetError(f"{scene.folder}: none of the views looked at has a pixel of valid depth")
    poses = np.array([view.camera_from_world for view in scene.stored_views()])
    found = doubt(frames, agreement(pairs_of(frames)), scene.depth_unit, reach_of(known, poses))
    if found is None:
        return []
    words = f"{scene.folder}: {found.words}; python -m megasynth_train.inspect shows it"
    if found.certain and scene.reading.depth_unit == 0:
        raise DatasetError(words)
    return [words]


def _refuse_twice(scenes: Iterable[TrainingScene]) -> None:
    seen = set()
    for scene in scenes:
        if scene.folder in seen:
            raise ConfigError(f"data= names {scene.folder} twice: a dataset and its experiment, or one folder repeated")
        seen.add(scene.folder)


def _notes_on_views(scenes: Sequence[TrainingScene], settings: DataSettings) -> list[str]:
    most = usable_views(scenes, settings).high
    if most == settings.views.high:
        return []
    reason = "images_per_step" if most == settings.images_per_step else "the scene with the fewest views"
    return [f"at most {most} views per scene are drawn instead of {settings.views.high}, limited by {reason}"]


def _first(bad: Sequence[BadScene]) -> str:
    return f"{len(bad)} could not be read, first: {bad[0].reason}" if bad else "lower it or add scenes"
