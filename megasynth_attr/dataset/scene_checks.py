"""Checks of one scene folder: files, values, cameras, clearance, exposure, optional layers, reprojection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from megasynth_attr.core.command.words import shown
from megasynth_attr.core.errors import DatasetError, MegaSynthError
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.archive import FileSum
from megasynth_attr.dataset.findings import ERROR, Finding, SceneFacts
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.reader import SceneData, View, blender_of
from megasynth_attr.dataset.reprojection import Surface, choose_pairs, compare, pixel_rays, world_points
from megasynth_attr.dataset.scene_files import file_sizes
from megasynth_attr.scene.frame import camera_from_world, intrinsics
from megasynth_attr.scene.spec import Camera, Texture

ORTHONORMAL = 1e-6
PAIRS_PER_SCENE = 12  # of views, compared by reprojection
CLIPPED_SHARE, BLACK_SHARE = 0.2, 0.6
BLACK_LEVEL = 3  # of 255: below 0.1 % of linear white


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

    @property
    def rounding(self) -> float:
        """Relative rounding error of depth on disk, doubled."""
        return 2.0**-10 if self.depth == "float16" else 2.0**-22


def check_scene(scene: SceneData, expected: Expected) -> SceneFacts:
    """Return the facts and findings of one scene; damaged data never raises."""
    check = _SceneCheck(scene, expected)
    intact = check.files()
    primitives = check.records(intact)
    if paths.CAMERAS_FILE in intact and (views := check.attempt("cameras", lambda: scene.views)) is not None:
        check.frames(views, intact, primitives)
    return check.facts


def depth_digests(scene: SceneData, expected: Expected) -> list[str]:
    """Return the SHA-256 of each depth file as checksums.json lists it, "" where it lists none."""
    try:
        return _depth_digests(scene.checksums, expected)
    except DatasetError:
        return _depth_digests({}, expected)


def _depth_digests(listed: Mapping[str, FileSum], expected: Expected) -> list[str]:
    entries = (listed.get(paths.layer_file("depth", frame)) for frame in range(expected.frames))
    return [entry.sha256 if entry else "" for entry in entries]


class _SceneCheck:
    """The checks of one scene, one method each. They collect what they see, and what is wrong, in ``facts``."""

    def __init__(self, scene: SceneData, expected: Expected) -> None:
        self.scene = scene
        self.expected = expected
        self.facts = SceneFacts(scene.name)

    def error(self, check: str, message: str, where: str = "") -> None:
        place = f"{self.scene.name}/{where}" if where else self.scene.name
        self.facts.findings.append(Finding(ERROR, check, place, message))

    def attempt(self, check: str, action: Callable[[], Any]) -> Any:
        """Return ``action()``, or None with a finding if the files do not allow it."""
        try:
            return action()
        except MegaSynthError as error:
            self.error(check, str(error))
            return None

    def files(self) -> set[str]:
        """Return the names of the files whose bytes are those that were written."""
        expected = self.expected
        if (sizes := self.attempt("files", lambda: file_sizes(self.scene.path))) is None:
            return set()
        listed: dict[str, FileSum] = self.attempt("files", lambda: self.scene.checksums) or {}
        frames = range(expected.frames)
        wanted = {paths.layer_file(layer, i) for layer in expected.layers for i in frames} | set(paths.RECORDS)
        present = sizes.keys() - {paths.CHECKSUMS_FILE}
        for name in sorted(wanted - present):
            self.error("files", f"the file is missing; {RENDER_ANEW}", name)
        for name in sorted(present - wanted):
            self.error("files", "the file does not belong here (not written by these settings)", name)
        intact = set()
        for name in sorted(wanted & present) if listed else []:
            change = self.attempt("files", partial(self.scene.change, name))
            if change:
                self.error("files", change, name)
            elif change is not None:
                intact.add(name)
        for name in sorted(listed.keys() - wanted):
            self.error("files", f"checksums.json lists a file that does not belong here: {shown(name)}")
        self.facts.bytes = sum(entry.bytes for entry in listed.values())
        self.facts.depth_digests = _depth_digests(listed, expected)
        return intact

    def records(self, intact: set[str]) -> int | None:
        """Check scene.json and cameras.json against each other and against dataset.json.

        Returns the number of primitives; None if the scene has no geometry or cannot be read.
        """
        expected = self.expected
        spec = self.attempt("scene", lambda: self.scene.scene)
        if spec is None:
            return None
        self.facts.hashes = spec.hashes()
        if isinstance(texture := spec.factors.get("texture"), Texture):
            self.facts.identities = texture.identities
        place = (spec.attribute, spec.dataset_index, spec.scene_index)
        if place != (expected.attribute, expected.dataset_index, self.scene.index):
            self.error("scene", f"the scene file belongs to {spec.name}", paths.SCENE_FILE)
        camera = spec.factors.get("camera")
        if paths.CAMERAS_FILE in intact and isinstance(camera, Camera):
            self.attempt("cameras", lambda: self.cameras(camera))
        if paths.RENDER_FILE in intact:
            self.facts.blender = self.attempt("scene", partial(blender_of, self.scene)) or ""
        geometry = spec.factors.get("geometry")
        return len(geometry.primitives) if hasattr(geometry, "primitives") else None

    def cameras(self, camera: Camera) -> None:
        """Check that matrices are rigid, right-handed, and those of the scene file."""
        scene, expected = self.scene, self.expected
        size = (scene.cameras["width_px"], scene.cameras["height_px"])
        if size != (expected.width_px, expected.height_px):
            self.error("cameras", f"image size {size}, but dataset.json says {(expected.width_px, expected.height_px)}")
        matrices = scene.camera_from_world
        if matrices.shape != (expected.frames, 4, 4) or not np.isfinite(matrices).all():
            self.error("cameras", f"{matrices.shape} poses, expected {(expected.frames, 4, 4)}, all finite")
            return
        rotation = matrices[:, :3, :3]
        deviation = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
        for i in np.flatnonzero(deviation > ORTHONORMAL)[:1]:
            self.error("cameras", f"the rotation is not orthonormal (by {deviation[i]:.1e})", f"frame {i}")
        for i in np.flatnonzero(np.linalg.det(rotation) < 0)[:1]:
            self.error("cameras", "the rotation is a reflection: its determinant is negative", f"frame {i}")
        if not (matrices[:, 3] == (0, 0, 0, 1)).all():
            self.error("cameras", "the last row of a pose is not (0, 0, 0, 1)")
        if not np.allclose(scene.intrinsics, intrinsics(camera.fov_x_deg, *size), atol=1e-6, rtol=0):
            self.error("cameras", "the intrinsics are not those of the scene file")
        wanted = camera_from_world(camera)
        if wanted.shape != matrices.shape or not np.allclose(matrices, wanted, atol=1e-6, rtol=0):
            self.error("cameras", "the poses are not those of the scene file")

    def frames(self, views: tuple[View, ...], intact: set[str], primitives: int | None) -> None:
        """Read every intact frame once; keep the depth maps that reprojection needs."""
        facts, expected, nearest_frame = self.facts, self.expected, -1
        pairs = choose_pairs(self.scene.camera_from_world, PAIRS_PER_SCENE)
        needed = {index for pair in pairs for index in pair}
        kept: dict[int, np.ndarray] = {}
        ray_lengths = np.linalg.norm(pixel_rays(views[0].height_px, views[0].width_px, views[0].intrinsics), axis=-1)
        for view in views:
            if not intact.issuperset(paths.layer_file(layer, view.index) for layer in expected.layers):
                continue
            depth = self.attempt("values", partial(_checked_depth, view))
            image = self.attempt("values", partial(getattr, view, "image"))
            if depth is None or image is None:
                continue
            facts.frames += 1
            hit = depth > 0
            nearest = float((depth[hit] * ray_lengths[hit]).min(initial=np.inf))
            if nearest < facts.nearest_surface:
                facts.nearest_surface, nearest_frame = nearest, view.index
            self.exposure(image[hit])
            self.attempt("layers", partial(self.layers, view, depth, primitives))
            if view.index in needed:
                kept[view.index] = depth

        def surface(index: int) -> Surface:
            return Surface(kept[index], views[index].intrinsics, views[index].camera_from_world)

        facts.pairs = [(a, b, compare(surface(a), surface(b))) for a, b in pairs if a in kept and b in kept]
        if facts.nearest_surface < expected.clearance * (1 - expected.rounding):
            distance = f"a surface is {facts.nearest_surface:.4f} from the camera"
            self.error(
                "clearance", f"{distance}, at least {expected.clearance:g} is required", f"frame {nearest_frame}"
            )

    def exposure(self, foreground: np.ndarray) -> None:
        """Count a frame, N×4 pixels, as clipped (a channel at 255), black (none above ``BLACK_LEVEL``) or empty."""
        count = len(foreground)
        brightest = foreground[:, :3].max(axis=-1)
        self.facts.empty_frames += count == 0
        self.facts.clipped_frames += int(np.count_nonzero(brightest == 255) > CLIPPED_SHARE * count)
        self.facts.black_frames += int(np.count_nonzero(brightest <= BLACK_LEVEL) > BLACK_SHARE * count)

    def layers(self, view: View, depth: np.ndarray, primitives: int | None) -> None:
        """Check normals (unit, facing), instance ids (range, support) and positions (equal to unprojected depth)."""
        where, hit = f"frame {view.index}", depth > 0
        if not hit.any():
            return
        points = world_points(depth, view.intrinsics, view.camera_from_world)
        if (normal := view.normal) is not None:
            unit = np.abs(np.linalg.norm(normal[hit], axis=-1) - 1) < 5e-3
            if not unit.mean() > 0.999:
                self.error("layers", f"{(~unit).mean():.1%} of the normals do not have length 1", where)
            centre = -view.camera_from_world[:3, :3].T @ view.camera_from_world[:3, 3]
            away = np.einsum("nc,nc->n", normal[hit], centre - points[hit]) < -0.05
            if away.mean() > 0.01:
                self.error("layers", f"{away.mean():.1%} of the normals point away from the camera", where)
        if (instance := view.instance) is not None:
            if primitives is not None and instance.max() > primitives:
                self.error("layers", f"instance id {instance.max()}, but the scene has {primitives} primitives", where)
            if ((instance > 0) != hit).mean() > 1e-3:
                self.error("layers", "instance ids and depth cover different pixels", where)
        if (position := view.position) is not None:
            difference = np.linalg.norm(position[hit] - points[hit], axis=-1)
            if (difference > 1e-4 + 4 * self.expected.rounding * depth[hit]).mean() > 1e-3:
                self.error("layers", f"positions differ from unprojected depth by up to {difference.max():.2e}", where)


def _checked_depth(view: View) -> np.ndarray:
    """Return a view's depth; DatasetError unless all of it is finite and none negative."""
    depth = view.depth_z
    if not np.isfinite(depth).all():
        raise DatasetError(f"{view.file('depth').name}: {np.count_nonzero(~np.isfinite(depth))} values are not finite")
    if depth.min() < 0:
        raise DatasetError(f"{view.file('depth').name}: depth has negative values, the smallest {depth.min():g}")
    return depth
