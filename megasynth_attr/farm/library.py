"""What a scene refers to by name – materials, pictures, HDRIs – and where their files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.exr import decode_rarer_exr
from megasynth_attr.core.files import sha256_of
from megasynth_attr.core.pictures import read_content
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.core.selection import select_indices
from megasynth_attr.core.streams import Scope
from megasynth_attr.dataset.paths import dataset_dir, finished_scenes, has_all, scene_path
from megasynth_attr.dataset.reader import SceneData
from megasynth_attr.scene.config import Config, Experiment
from megasynth_attr.scene.factor import Records
from megasynth_attr.scene.layouts.scan import mesh_of, meshes_of
from megasynth_attr.scene.probe import project_hdri
from megasynth_attr.scene.scans import ScanRecord, list_scans
from megasynth_attr.scene.spec import Assets, Scene
from megasynth_attr.textures.bank import Bank, open_bank
from megasynth_attr.textures.pictures import list_pictures
from megasynth_attr.textures.radiance import read_hdr

HDRI_SUFFIXES = (".hdr", ".exr")
MATERIAL_FIELDS = ("name", "category", "license", "source", "identity")
PROBE_WIDTH_PX = 64  # an HDRI is reduced to this width before it is projected to nine harmonics


@dataclass(frozen=True)
class HdriRecord:
    """An environment picture; ``irradiance_sh`` is 9×3 (see ``scene/probe.py``)."""

    name: str
    path: str
    sha256: str
    irradiance_sh: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Library:
    """Records for sampling, and files for rendering."""

    bank: Bank
    records: Records

    def material_records(self) -> list[dict[str, str]]:
        """Return name, category, licence, source and content hash of every material of the bank, for dataset.json."""
        return [{key: str(getattr(r, key)) for key in MATERIAL_FIELDS} for r in self.records.materials.values()]

    def assets_for(self, scene: Scene) -> Assets:
        """Return the paths of every file the scene shows, making procedural materials that do not exist yet."""
        geometry, texture, lighting = (scene.factors[name] for name in ("geometry", "texture", "lighting"))
        slots = [p.slot for p in geometry.primitives if p.surface != "own"]
        shown = {texture.slots[slot % len(texture.slots)].material for slot in slots}
        maps = self.bank.materialise(sorted(shown))
        pictures = (
            {texture.picture.name: str(self.records.pictures[texture.picture.name].path)} if texture.picture else {}
        )
        hdris = {lighting.hdri.name: self.records.hdris[lighting.hdri.name].path} if lighting.hdri else {}
        scans = {geometry.scan.name: str(self.records.scans[geometry.scan.name].path)} if geometry.scan else {}
        materials = {name: {m: str(p) for m, p in files.items()} for name, files in maps.items()}
        return Assets(materials, pictures, hdris, scans)


def open_library(config: Config, cache_dir: Path) -> Library:
    """Return the Library of a configuration; DatasetError for a missing or unreadable bank, picture or HDRI."""
    geometry, texture, lighting = (config.factors[name] for name in ("geometry", "texture", "lighting"))
    bank = open_bank(texture.bank, cache_dir=cache_dir, size_px=texture.bank_size_px)
    pictures = {}
    if geometry.layout == "plane":
        pictures = {p.name: p for p in list_pictures(pictures_folder(texture.pictures))}
    hdris = {h.name: h for h in list_hdris(Path(lighting.hdris))} if lighting.hdris else {}
    scans = find_scans(config)
    return Library(bank, Records({r.name: r for r in bank.records}, pictures, hdris, scans))


def find_scans(config: Config) -> dict[str, ScanRecord]:
    """Return the meshes of a configuration by name, none unless it shows meshes; no file is read.

    DatasetError if their folder is missing or holds none, ConfigError if there are too few.
    """
    geometry = config.factors["geometry"]
    if geometry.layout != "scan":
        return {}
    found = list_scans(Path(geometry.scan_folder), geometry.scan_pattern, geometry.scan_source)
    scans = {record.name: record for record in found}
    _check_scan_count(config, scans)
    return scans


def _check_scan_count(config: Config, scans: Mapping[str, ScanRecord]) -> None:
    """Raise ConfigError if selected scenes would show a mesh again where none should be: the folder is divided, or
    nothing else varies."""
    varying = [name for name, settings in config.factors.items() if settings.scope == Scope.SCENE]
    geometry = config.factors["geometry"]
    if "geometry" not in varying or (len(varying) > 1 and not geometry.scan_test):
        return
    scenes = select_indices(config.run.scenes, config.content.scene_count, "scenes")
    datasets = select_indices(config.run.datasets, config.content.dataset_count, "datasets")
    for index in datasets if geometry.scan_test else datasets[:1]:
        count = len(meshes_of(geometry, scans, index))
        if scenes and scenes[-1] >= count:
            raise ConfigError(
                f"scene_count={config.content.scene_count}: dataset {index} has only {count} meshes, one a scene; "
                f"set scene_count={count} or scenes=0-{count - 1}"
            )


def check_scans(experiment: Experiment) -> None:
    """Raise what ``find_scans`` raises, and ConfigError if a folder of meshes has changed since scenes were rendered:
    those to come would repeat meshes or leave some out. A file that comes or goes moves all that follow, so the last
    scene of a dataset tells.
    """
    for config in experiment.configs:
        scans, content = find_scans(config), config.content
        wanted = select_indices(config.run.scenes, content.scene_count, "scenes")
        for index in select_indices(config.run.datasets, content.dataset_count, "datasets") if scans else ():
            folder = dataset_dir(experiment.out, config.attribute, index)
            if (there := finished_scenes(folder)) and not has_all(folder, wanted):
                _check_stayed(config, scans, index, scene_path(folder, there[-1]))


def _check_stayed(config: Config, scans: Mapping[str, ScanRecord], dataset_index: int, scene: Path) -> None:
    geometry, data = config.factors["geometry"], SceneData(scene)
    try:
        scan = data.scene.factors["geometry"].scan
    except DatasetError:  # which the stage says before it renders the scene anew
        return
    due = mesh_of(geometry, scans, dataset_index, data.index).name
    if scan is not None and scan.name != due:  # None: of other settings, which are refused
        raise ConfigError(
            f"geometry.scan_folder={geometry.scan_folder}: files came or went since {config.attribute} was begun: "
            f"scene {data.name} of dataset {dataset_index} shows {scan.name}, and would now show {due}; restore the "
            "folder as it was (a file that cannot be read may stay), or render into another out="
        )


def pictures_folder(given: str) -> Path:
    """Return the folder that ``pictures=`` names; if it is empty, that of the pictures that come with the project."""
    return Path(given) if given else resource_dir("assets") / "pictures"


def cache_dir(experiment: Experiment) -> Path:
    """Return where procedural materials of a run are kept, shared by all its workers."""
    return Path(experiment.run.cache) if experiment.run.cache else experiment.out / "cache"


def list_hdris(folder: Path) -> tuple[HdriRecord, ...]:
    """Return all ``.hdr``/``.exr`` pictures of ``folder``, sorted by name; DatasetError if one cannot be read."""
    if not folder.is_dir():
        raise DatasetError(f"lighting.hdris={folder}: there is no such folder")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in HDRI_SUFFIXES)
    if not paths:
        raise DatasetError(f"lighting.hdris={folder}: it holds no .hdr or .exr file")
    return tuple(_hdri_record(path) for path in paths)


def _hdri_record(path: Path) -> HdriRecord:
    radiance = _shrunk(read_radiance(path))
    coefficients = np.round(project_hdri(radiance), 6)
    sha256 = sha256_of(path)
    return HdriRecord(path.name, str(path.absolute()), sha256, tuple((r, g, b) for r, g, b in coefficients.tolist()))


def read_radiance(path: Path) -> np.ndarray:
    """Return an HDRI as H×W×3 float32 linear radiance; DatasetError if it is unreadable or not 2:1."""
    try:
        radiance = _read_exr(path) if path.suffix.lower() == ".exr" else read_hdr(path)
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise DatasetError(f"the HDRI {path} cannot be read: {error}; replace or remove it") from error
    if radiance.ndim != 3 or radiance.shape[1] != 2 * radiance.shape[0]:
        raise DatasetError(
            f"the HDRI {path} is {radiance.shape[1]}×{radiance.shape[0]} px; it must be 2:1 equirectangular"
        )
    return radiance


def _read_exr(path: Path) -> np.ndarray:
    channels = decode_rarer_exr(read_content(path, "replace or remove it"), path)
    return np.stack([channels[c].astype(np.float32) for c in "RGB"], axis=-1)


def _shrunk(radiance: np.ndarray) -> np.ndarray:
    """Return the picture averaged over blocks down to about PROBE_WIDTH_PX columns."""
    step = max(1, radiance.shape[1] // PROBE_WIDTH_PX)
    height, width = radiance.shape[0] // step * step, radiance.shape[1] // step * step
    blocks = radiance[:height, :width].reshape(height // step, step, width // step, step, 3)
    return blocks.mean(axis=(1, 3))
