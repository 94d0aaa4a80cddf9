"""Checks of one scene folder: files, values, cameras, clearance, exposure, optional layers, reprojection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.errors import DatasetError, MegaSynthError
from megasynth_attr.core.files import read_json, sha256_of
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.conventions import CHECKSUMS_FORMAT
from megasynth_attr.dataset.findings import ERROR, Finding, SceneFacts
from megasynth_attr.dataset.images import RENDER_ANEW
from megasynth_attr.dataset.reader import SceneData, View
from megasynth_attr.dataset.reprojection import (
    DepthView,
    PairResult,
    Surface,
    choose_pairs,
    compare,
    pixel_rays,
    world_points,
)
from megasynth_attr.scene.frame import camera_from_world, intrinsics
from megasynth_attr.scene.spec import Camera

ORTHONORMAL = 1e-6
CLIPPED_SHARE, BLACK_SHARE = 0.2, 0.6
BLACK_LEVEL = 3  # of 255: below 0.1 % of linear white
RECORDS = (paths.SCENE_FILE, paths.CAMERAS_FILE, paths.RENDER_FILE)


@dataclass(frozen=True)
class Expected:
    """What dataset.json says about every scene."""

    attribute: str
    dataset_index: int
    width_px: int
    height_px: int
    frames: int
    layers: tuple[str, ...]
    clearance: float
    depth: str  # precision: float32 | float16
    pairs: int  # view pairs compared by reprojection

    @property
    def rounding(self) -> float:
        """Relative rounding error of depth on disk, doubled."""
        return 2.0**-10 if self.depth == "float16" else 2.0**-22


@dataclass
class _Notes:
    """Collects findings of one scene; calls that raise an expected error become findings."""

    scene: str
    findings: list[Finding] = field(default_factory=list)

    def error(self, check: str, message: str, where: str = "") -> None:
        self.findings.append(Finding(ERROR, check, f"{self.scene}/{where}" if where else self.scene, message))

    def attempt(self, check: str, action: Callable[[], Any]) -> Any:
        """Return ``action()``, or None with a finding if the files do not allow it."""
        try:
            return action()
        except MegaSynthError as error:
            self.error(check, str(error))
            return None


def check_scene(scene: SceneData, expected: Expected) -> SceneFacts:
    """Return the facts and findings of one scene; damaged data never raises."""
    notes = _Notes(scene.name)
    checksums, intact = _check_files(scene.path, expected, notes)
    hashes = _check_records(scene, expected, intact, notes)
    views = notes.attempt("cameras", lambda: scene.views) if paths.CAMERAS_FILE in intact else None
    measured = _Measured()
    if views is not None:
        measured = _check_frames(views, expected, intact, hashes.primitives, notes)
    if measured.nearest < expected.clearance * (1 - expected.rounding):
        notes.error(
            "clearance",
            f"a surface is {measured.nearest:.4f} from the camera, at least {expected.clearance:g} is required",
            f"frame {measured.nearest_frame}",
        )
    digests = [checksums.get(paths.layer_file("depth", i), {}).get("sha256", "") for i in range(expected.frames)]
    return SceneFacts(
        name=scene.name,
        findings=tuple(notes.findings),
        hashes=hashes.factors,
        depth_digests=tuple(digests),
        frames=measured.frames,
        bytes=sum(int(entry.get("bytes", 0)) for entry in checksums.values()),
        nearest_surface=measured.nearest,
        clipped_frames=measured.clipped,
        black_frames=measured.black,
        empty_frames=measured.empty,
        pairs=tuple(measured.pairs),
    )


def _check_files(folder: Path, expected: Expected, notes: _Notes) -> tuple[dict[str, Any], set[str]]:
    """Return (checksums by file name, the names whose bytes are right)."""
    record = notes.attempt("files", lambda: read_json(folder / paths.CHECKSUMS_FILE, CHECKSUMS_FORMAT))
    listed: dict[str, Any] = (record or {}).get("files", {})
    wanted = {paths.layer_file(layer, i) for layer in expected.layers for i in range(expected.frames)} | set(RECORDS)
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {paths.CHECKSUMS_FILE}
    for name in sorted(wanted - present):
        notes.error("files", f"the file is missing; {RENDER_ANEW}", name)
    for name in sorted(present - wanted):
        notes.error("files", "the file does not belong here (not written by these settings)", name)
    intact = set()
    for name in sorted(wanted & present):
        size = (folder / name).stat().st_size
        entry = listed.get(name)
        if entry is None:
            notes.error("files", "the file is not listed in checksums.json", name)
        elif size != entry.get("bytes"):
            notes.error("files", f"the file has {size} bytes, {entry.get('bytes')} were written", name)
        elif sha256_of(folder / name) != entry.get("sha256"):
            notes.error("files", "the file was changed after it was written: its checksum differs", name)
        else:
            intact.add(name)
    return listed, intact


@dataclass(frozen=True)
class _SceneHashes:
    factors: dict[str, str]
    primitives: int | None  # number of primitives, where the scene has a geometry


def _check_records(scene: SceneData, expected: Expected, intact: set[str], notes: _Notes) -> _SceneHashes:
    """Check scene.json and cameras.json against each other and against dataset.json."""
    spec = notes.attempt("scene", lambda: scene.scene)
    if spec is None:
        return _SceneHashes({}, None)
    place = (spec.attribute, spec.dataset_index, spec.scene_index)
    if place != (expected.attribute, expected.dataset_index, scene.index):
        notes.error("scene", f"the scene file belongs to {spec.name}", paths.SCENE_FILE)
    camera = spec.factors.get("camera")
    if paths.CAMERAS_FILE in intact and isinstance(camera, Camera):
        notes.attempt("cameras", lambda: _check_cameras(scene, camera, expected, notes))
    geometry = spec.factors.get("geometry")
    return _SceneHashes(spec.hashes(), len(geometry.primitives) if hasattr(geometry, "primitives") else None)


def _check_cameras(scene: SceneData, camera: Camera, expected: Expected, notes: _Notes) -> None:
    """Check that matrices are rigid, right-handed, and those of the scene file."""
    size = (scene.cameras["width_px"], scene.cameras["height_px"])
    if size != (expected.width_px, expected.height_px):
        notes.error("cameras", f"image size {size}, dataset.json says {(expected.width_px, expected.height_px)}")
    matrices = scene.camera_from_world
    if matrices.shape != (expected.frames, 4, 4) or not np.isfinite(matrices).all():
        notes.error("cameras", f"{matrices.shape} poses, expected {(expected.frames, 4, 4)}, all finite")
        return
    rotation = matrices[:, :3, :3]
    deviation = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    for i in np.flatnonzero(deviation > ORTHONORMAL)[:1]:
        notes.error("cameras", f"the rotation is not orthonormal (by {deviation[i]:.1e})", f"frame {i}")
    for i in np.flatnonzero(np.linalg.det(rotation) < 0)[:1]:
        notes.error("cameras", "the rotation is a reflection: its determinant is negative", f"frame {i}")
    if not np.array_equal(matrices[:, 3], np.tile([0.0, 0, 0, 1], (len(matrices), 1))):
        notes.error("cameras", "the last row of a pose is not (0, 0, 0, 1)")
    if not np.allclose(scene.intrinsics, intrinsics(camera.fov_x_deg, *size), atol=1e-6, rtol=0):
        notes.error("cameras", "the intrinsics are not those of the scene file")
    wanted = camera_from_world(camera)
    if wanted.shape != matrices.shape or not np.allclose(matrices, wanted, atol=1e-6, rtol=0):
        notes.error("cameras", "the poses are not those of the scene file")


@dataclass
class _Measured:
    frames: int = 0
    nearest: float = float("inf")
    nearest_frame: int = -1
    clipped: int = 0
    black: int = 0
    empty: int = 0
    pairs: list[tuple[int, int, PairResult]] = field(default_factory=list)


def _check_frames(
    views: tuple[View, ...], expected: Expected, intact: set[str], primitives: int | None, notes: _Notes
) -> _Measured:
    """Read every intact frame once; keep the depth maps that reprojection needs."""
    measured = _Measured()
    poses = np.stack([view.camera_from_world for view in views])
    pairs = choose_pairs(poses, expected.pairs)
    needed = {index for pair in pairs for index in pair}
    kept: dict[int, DepthView] = {}
    ray_lengths = np.linalg.norm(pixel_rays(views[0].height_px, views[0].width_px, views[0].intrinsics), axis=-1)
    for view in views:
        names = [paths.layer_file(layer, view.index) for layer in expected.layers]
        if not intact.issuperset(names):
            continue
        depth = notes.attempt("values", partial(_check_depth, view))
        image = notes.attempt("values", partial(getattr, view, "image"))
        if depth is None or image is None:
            continue
        measured.frames += 1
        _measure(measured, view.index, image, depth, ray_lengths)
        notes.attempt("layers", partial(_check_layers, view, depth, primitives, expected, notes))
        if view.index in needed:
            kept[view.index] = DepthView(depth, view.intrinsics, view.camera_from_world)
    measured.pairs = [(a, b, compare(Surface(kept[a]), Surface(kept[b]))) for a, b in pairs if a in kept and b in kept]
    return measured


def _check_depth(view: View) -> np.ndarray:
    depth = view.depth_z
    if not np.isfinite(depth).all():
        raise DatasetError(f"{view.file('depth').name}: {np.count_nonzero(~np.isfinite(depth))} values are not finite")
    if depth.min() < 0:
        raise DatasetError(f"{view.file('depth').name}: depth has negative values, the smallest {depth.min():g}")
    return depth


def _measure(measured: _Measured, index: int, image: np.ndarray, depth: np.ndarray, ray_lengths: np.ndarray) -> None:
    """Update clearance and exposure. Clipped: a channel at 255; black: no channel above ``BLACK_LEVEL``."""
    foreground = depth > 0
    count = np.count_nonzero(foreground)
    if count == 0:
        measured.empty += 1
        return
    nearest = float((depth[foreground] * ray_lengths[foreground]).min())
    if nearest < measured.nearest:
        measured.nearest, measured.nearest_frame = nearest, index
    brightest = image[..., :3].max(axis=-1)[foreground]
    measured.clipped += int(np.count_nonzero(brightest == 255) > CLIPPED_SHARE * count)
    measured.black += int(np.count_nonzero(brightest <= BLACK_LEVEL) > BLACK_SHARE * count)


def _check_layers(view: View, depth: np.ndarray, primitives: int | None, expected: Expected, notes: _Notes) -> None:
    """Check normals (unit, facing), instance ids (range, support) and positions (equal to unprojected depth)."""
    where, hit = f"frame {view.index}", depth > 0
    if not hit.any():
        return
    points = world_points(depth, view.intrinsics, view.camera_from_world)
    if (normal := view.normal) is not None:
        length = np.linalg.norm(normal[hit], axis=-1)
        if not (np.abs(length - 1) < 5e-3).mean() > 0.999:
            notes.error("layers", f"{(np.abs(length - 1) >= 5e-3).mean():.1%} of the normals have not length 1", where)
        centre = -view.camera_from_world[:3, :3].T @ view.camera_from_world[:3, 3]
        away = np.einsum("nc,nc->n", normal[hit], centre - points[hit]) < -0.05
        if away.mean() > 0.01:
            notes.error("layers", f"{away.mean():.1%} of the normals point away from the camera", where)
    if (instance := view.instance) is not None:
        if primitives is not None and instance.max() > primitives:
            notes.error("layers", f"instance id {instance.max()}, the scene has {primitives} primitives", where)
        if ((instance > 0) != hit).mean() > 1e-3:
            notes.error("layers", "instance ids and depth cover different pixels", where)
    if (position := view.position) is not None:
        difference = np.linalg.norm(position[hit] - points[hit], axis=-1)
        if (difference > 1e-4 + 4 * expected.rounding * depth[hit]).mean() > 1e-3:
            notes.error("layers", f"positions differ from unprojected depth by up to {difference.max():.2e}", where)
