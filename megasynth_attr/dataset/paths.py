"""Names and places of all files of a dataset; nothing else in the project builds such a path.

::

    <out>/experiment.json
    <out>/<attribute>_<kk>/dataset.json
    <out>/<attribute>_<kk>/scenes/<ttt>/<tttsss>/{scene,cameras,render,checksums}.json
    <out>/<attribute>_<kk>/scenes/<ttt>/<tttsss>/{rgb/0000.png, depth/0000.exr, normal/…, instance/…, position/…}
    <out>/<attribute>_<kk>/scenes/<ttt>/<tttsss>.tar     in place of the folder: all of its files (write.pack=tar)
    <out>/<attribute>_<kk>/tmp/<tttsss>.<host>.<pid>.<n>{/,.lock}   a scene being written, and who writes it
    <out>/<attribute>_<kk>/failures/<tttsss>.json
    <out>/<attribute>_<kk>/damaged/<tttsss>{/,.tar}      a scene that is no longer what was written
    <out>/<attribute>_<kk>/index/{<ttt>.jsonl, new/}    what dataset.json says of scenes, kept to finish it fast
    <out>/<attribute>_<kk>/verify.json, report/, view/      made by the later stages, and to look at scenes
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from megasynth_attr.core.temporary import TMP as TMP

EXPERIMENT_FILE = "experiment.json"
DATASET_FILE = "dataset.json"
VERIFY_FILE = "verify.json"
SCENE_FILE = "scene.json"
CAMERAS_FILE = "cameras.json"
RENDER_FILE = "render.json"
CHECKSUMS_FILE = "checksums.json"
SCENES, FAILURES, DAMAGED, REPORT, INDEX, VIEW = "scenes", "failures", "damaged", "report", "index", "view"
RECORDS = (SCENE_FILE, CAMERAS_FILE, RENDER_FILE)
ARCHIVE = ".tar"  # ending of a packed scene
LOOKED_UP = 10  # scenes of a folder; more are found faster by listing all of it
LAYERS = {"rgb": ".png", "depth": ".exr", "normal": ".exr", "instance": ".png", "position": ".exr"}
RENDER_ANEW = (
    "if you made this dataset, delete the scene's folder or .tar file and run the command that made it to render it "
    "anew; if you were given it, fetch the scene again"
)  # what to do about a damaged file of a dataset; readers of other data pass advice of their own
RENDER_REST = (
    "if you made this dataset, the command that made it renders the missing scenes; if you were given it, fetch them"
)
_THOUSAND, _SCENE = re.compile("[0-9]{3}"), re.compile("[0-9]{6}")


def dataset_name(attribute: str, dataset_index: int) -> str:
    """Return the folder name of a dataset, e.g. ``texture_03``."""
    return f"{attribute}_{dataset_index:02d}"


def in_order(datasets: Iterable[Path]) -> list[Path]:
    """Return the folders of datasets by attribute and index: texture_99 comes before texture_100."""

    def key(folder: Path) -> str:
        attribute, _, index = folder.name.rpartition("_")
        return f"{attribute}_{index.zfill(6)}"

    return sorted(datasets, key=key)


def dataset_dir(out: Path, attribute: str, dataset_index: int) -> Path:
    """Return the folder of a dataset inside the output folder ``out``."""
    return Path(out) / dataset_name(attribute, dataset_index)


def scene_name(scene_index: int) -> str:
    """Return the folder name of a scene, e.g. ``012345``."""
    return f"{scene_index:06d}"


def is_scene_name(name: str) -> bool:
    """Return whether a scene can be called so."""
    return _SCENE.fullmatch(name) is not None


def scene_dir(dataset: Path, scene_index: int) -> Path:
    """Return the folder of a scene; it exists exactly if the scene is complete and not packed."""
    name = scene_name(scene_index)
    return Path(dataset) / SCENES / name[:3] / name


def archive_file(dataset: Path, scene_index: int) -> Path:
    """Return the archive of a packed scene; it exists exactly if the scene is complete and packed."""
    return scene_dir(dataset, scene_index).with_suffix(ARCHIVE)


def is_finished(dataset: Path, scene_index: int) -> bool:
    """Return whether a scene exists, as a folder or as an archive: then it is complete."""
    return scene_dir(dataset, scene_index).is_dir() or archive_file(dataset, scene_index).is_file()


def scene_path(dataset: Path, scene_index: int) -> Path:
    """Return where a scene is: its archive if there is one and no folder, else its folder."""
    folder, archive = scene_dir(dataset, scene_index), archive_file(dataset, scene_index)
    return archive if os.path.lexists(archive) and not folder.is_dir() else folder


def failure_file(dataset: Path, scene_index: int) -> Path:
    """Return the file that records why a scene could not be rendered."""
    return Path(dataset) / FAILURES / f"{scene_name(scene_index)}.json"


def layer_file(layer: str, frame_index: int) -> str:
    """Return the path, relative to the scene folder, of one layer (a key of ``LAYERS``) of one frame."""
    return f"{layer}/{frame_index:04d}{LAYERS[layer]}"


def written_layers(write: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the layers that are written with these settings, the fields of ``WriteSettings``."""
    return tuple(layer for layer in LAYERS if layer in ("rgb", "depth") or write[layer])


def finished_by_thousand(dataset: Path) -> Iterator[list[int]]:
    """Yield the sorted indices of the scenes that exist, those of one folder ``<ttt>`` at a time, in order."""
    for thousand in sorted(filter(_THOUSAND.fullmatch, _names(Path(dataset) / SCENES))):
        yield sorted(_finished_in(dataset, thousand))


def finished_scenes(dataset: Path) -> list[int]:
    """Return the sorted indices of the scenes that exist; empty if there are none yet."""
    return [index for indices in finished_by_thousand(dataset) for index in indices]


def missing_among(dataset: Path, wanted: Iterable[int]) -> Iterator[int]:
    """Yield those of the ``wanted`` scenes, which rise or fall, that do not exist.

    A few of a folder are looked up one by one, so that a small share of a large dataset costs little.
    """
    for _, group in groupby(wanted, lambda index: scene_name(index)[:3]):
        scenes = list(group)
        if len(scenes) < LOOKED_UP:
            yield from (index for index in scenes if not is_finished(dataset, index))
        else:
            found = _finished_in(dataset, scene_name(scenes[0])[:3])
            yield from (index for index in scenes if index not in found)


def has_all(dataset: Path, wanted: Sequence[int]) -> bool:
    """Return whether all ``wanted`` scenes exist; the last, which come last, are looked for first."""
    return next(missing_among(dataset, reversed(wanted)), None) is None


def _finished_in(dataset: Path, thousand: str) -> set[int]:
    names = _names(Path(dataset) / SCENES / thousand)
    scenes = (name.removesuffix(ARCHIVE) for name in names)
    return {int(name) for name in scenes if name.startswith(thousand) and is_scene_name(name)}


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
