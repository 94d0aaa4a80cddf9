"""One mesh file of a folder per scene, centred and scaled, and nothing else.

Which file a scene shows is not random: the files, sorted by their path, are taken in turn.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import setting
from megasynth_attr.core.streams import Scope
from megasynth_attr.scene.factor import Draw
from megasynth_attr.scene.scans import Outline, ScanRecord
from megasynth_attr.scene.spec import Box, Geometry, Primitive, ScanRef

TRAIN, TEST = "train", "test"
# what takes the file's upward axis to +z; a file with y up keeps its x axis
UPRIGHT = {
    "x": (0.0, -0.5, 0.0), "y": (0.5, 0.0, 0.0), "z": (0.0, 0.0, 0.0),
    "-x": (0.0, 0.5, 0.0), "-y": (-0.5, 0.0, 0.0), "-z": (1.0, 0.0, 0.0),
}  # rotation vectors in units of pi  # fmt: skip
USUAL_UP = {".obj": "y", ".glb": "y", ".ply": "z"}


@dataclass(frozen=True)
class ScanSettings:
    """Mesh files from outside."""

    scan_folder: str = setting(
        "", "scan: folder of the meshes (.obj, .ply, .glb), at any depth", added=True, path="folder"
    )
    scan_pattern: str = setting(
        "*", "scan: only meshes whose path below that folder matches, e.g. chairs/*.glb", added=True
    )
    scan_up_axis: str = setting(
        "usual",
        "scan: the files' axis that points up; usual: y in .obj and .glb, z in .ply",
        options=["usual", *UPRIGHT],
        added=True,
    )
    scan_test: str = setting(
        "",
        "scan: dataset 0 shows only meshes for training, dataset 1 these for testing: the last so many, or those "
        "whose path matches; empty: not divided",
        added=True,
    )
    scan_source: str = setting("", "scan: where to get the meshes, said if they are missing", identity=False)

    def check_scan(self, name: str, layout: str) -> None:
        """Raise ConfigError if the layout needs a folder and none is given."""
        if layout == "scan" and not self.scan_folder:
            source = f"; {self.scan_source}" if self.scan_source else ""
            raise ConfigError(f"{name}.scan_folder= is missing: it names the folder of the meshes to render{source}")


def meshes_of(settings: ScanSettings, records: Mapping[str, ScanRecord], dataset_index: int) -> list[ScanRecord]:
    """Return the meshes that the scenes of a dataset take in turn; ConfigError if there are none."""
    names = list(records)
    if not settings.scan_test:
        return [records[name] for name in names]
    test = _test_names(names, settings.scan_test)
    if dataset_index > 1:
        raise ConfigError(
            f"geometry.scan_test={settings.scan_test}: there are two datasets, 0 for training and 1 for "
            f"testing; set dataset_count=2 (this is dataset {dataset_index})"
        )
    chosen = [records[name] for name in names if (name in test) == bool(dataset_index)]
    if not chosen:
        what = TEST if dataset_index else TRAIN
        raise ConfigError(
            f"geometry.scan_test={settings.scan_test}: of {len(names)} meshes, none is left for {what}ing"
        )
    return chosen


def mesh_of(settings: Any, records: Mapping[str, ScanRecord], dataset_index: int, scene_index: int) -> ScanRecord:
    """Return the mesh that a scene shows; ConfigError if there is none. ``settings``: of the geometry."""
    dataset_index = 0 if settings.scope == Scope.EXPERIMENT else dataset_index
    meshes = meshes_of(settings, records, dataset_index)
    if settings.scope == Scope.SCENE:
        return meshes[scene_index % len(meshes)]
    first = 0 if settings.scan_test else dataset_index * settings.variants
    return meshes[(first + scene_index % settings.variants) % len(meshes)]


def _test_names(names: Sequence[str], test: str) -> set[str]:
    if test.isdecimal():
        return set(names[max(0, len(names) - int(test)) :])
    return {name for name in names if fnmatch.fnmatchcase(name, test)}


def sample(settings: Any, draw: Draw) -> tuple[Geometry, float]:
    """Return the Geometry of the mesh whose turn it is, and the reach of its surface from the origin (scene units).

    ``settings``: of the geometry. SceneRejected, which names the file, for a mesh that cannot be used.
    """
    record = mesh_of(settings, draw.records.scans, draw.dataset_index, draw.turn)
    own_materials = draw.configs["texture"].scan_materials == "own"
    outline = record.outline(own_materials=own_materials)
    geometry = geometry_of(outline, upright(settings.scan_up_axis, record.name), own_materials=own_materials)
    split = "" if not settings.scan_test else TEST if draw.dataset_index else TRAIN
    geometry = replace(geometry, scan=ScanRef(record.name, outline.sha256, split))
    return geometry, outline.reach * geometry.scale


def upright(up_axis: str, name: str) -> scipy.spatial.transform.Rotation:
    """Return the rotation that takes the axes of the file ``name`` to a world with z up."""
    axis = USUAL_UP["." + name.rpartition(".")[2].lower()] if up_axis == "usual" else up_axis
    return scipy.spatial.transform.Rotation.from_rotvec(np.pi * np.array(UPRIGHT[axis]))


def geometry_of(outline: Outline, rotation: scipy.spatial.transform.Rotation, *, own_materials: bool) -> Geometry:
    """Return the Geometry of a mesh with this outline, without its reference; layout units are those of the file."""
    corners = np.round(rotation.as_matrix()) @ np.array([outline.low, outline.high]).T  # turned by quarters: exact
    low, high = corners.min(axis=1), corners.max(axis=1)
    size = _twelve_digits(high - low)
    centre = _twelve_digits((low + high) / 2)
    body = Primitive(
        kind="scan",
        box=0,
        half_axes=_twelve_digits((high - low) / 2),
        rotation_xyzw=rounded(rotation.as_quat()),
        translation=(0.0, 0.0, 0.0),
        heights=(),
        wireframe=False,
        surface="own" if own_materials else "material",
        slot=0,
    )
    return Geometry(
        layout="scan",
        extent=size,
        boxes=(Box("scan", centre, size),),
        primitives=(body,),
        window=None,
        tessellation=1,
        scale=_twelve_digits([2 / (high - low).max()])[0],
        centre=centre,
        dropped_boxes=0,
        attempts=1,
    )


def _twelve_digits(values: Any) -> Any:
    """Return floats as they are stored: files are in any unit, so decimals after the point say nothing."""
    return tuple(float(f"{value:.12g}") + 0.0 for value in values)


def to_scene(points: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return N×3 points of the scan's file in scene units."""
    turned = points @ file_rotation(geometry).T
    return (turned - geometry.centre) * geometry.scale


def file_rotation(geometry: Geometry) -> np.ndarray:
    """Return the 3×3 rotation from the axes of the scan's file to the world's; all entries are 0 or ±1."""
    rotation = scipy.spatial.transform.Rotation.from_quat(geometry.primitives[0].rotation_xyzw)
    return np.round(rotation.as_matrix()) + 0.0
