"""What follows exactly from depth and cameras of a still scene: what one view sees of another, flow, disparity.

Flow and occlusion between neighbouring views, and stereo disparity, are computed on export and never rendered:

* ``flow_forward``, H×W×2 float32: where the surface at a pixel's centre is in the next view, minus where it is here, in
  pixels (x right, y down); NaN where nothing is hit, and where it is behind the other camera
* ``occlusion_forward``, H×W uint8: 255 where the next view does not see that surface, as a nearer one hides it or it is
  outside of the picture, and where nothing is hit; else 0
* ``flow_backward`` and ``occlusion_backward``: the same into the view before
* ``disparity``, H×W float32: stereo disparity f·b/z in pixels for a second camera of the same kind, moved by the
  baseline b (scene units) to the right: what is at x here is at x − disparity there; 0 where nothing is hit
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from megasynth_attr.dataset.images import exr_bytes, png_bytes
from megasynth_attr.dataset.reader import View
from megasynth_attr.dataset.reprojection import project, regular_grid, world_points

SAME_DEPTH = 0.01  # relative difference of depth up to which two views see the same surface
COVISIBILITY_PIXELS = 4000  # of each view, about, that are looked for in the others
FLO_MAGIC = b"PIEH"
FLO_UNKNOWN = np.float32(1e10)  # readers of .flo files take what exceeds 1e9 for unknown
OCCLUDED = 255
SUFFIXES = {
    "flow_forward": ".flo",
    "occlusion_forward": ".png",
    "flow_backward": ".flo",
    "occlusion_backward": ".png",
    "disparity": ".exr",
}


@dataclass(frozen=True)
class Derived:
    """Which layers are derived: flow with occlusion, and disparity for a baseline in scene units (0: none)."""

    flow: bool = False
    disparity: float = 0.0

    def __bool__(self) -> bool:
        return self.flow or self.disparity > 0

    def layers(self, views: Sequence[View]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the derived layers of each view by name; the first has none backward, the last none forward."""
        depths = [view.depth_z for view in views] if self else []
        for i, view in enumerate(views):
            arrays = {}
            for way, j in (("forward", i + 1), ("backward", i - 1)):
                if self.flow and 0 <= j < len(views):
                    found = flow(view, depths[i], views[j], depths[j])
                    arrays[f"flow_{way}"], arrays[f"occlusion_{way}"] = found
            if self.disparity:
                arrays["disparity"] = stereo_disparity(depths[i], view.intrinsics[0, 0], self.disparity)
            yield arrays

    def files(self, views: Sequence[View]) -> Iterator[dict[str, bytes]]:
        """Yield the files of each view's layers: Middlebury's .flo, 8-bit PNG, EXR with float32 as channel Y."""
        for arrays in self.layers(views):
            yield {name: encoded(name, array) for name, array in arrays.items()}

    def write(self, folder: Path, views: Sequence[View]) -> None:
        """Write the files into folders of a scene, one per layer: ``flow_forward/0000.flo`` and so on."""
        for view, files in zip(views, self.files(views), strict=True):
            for name, content in files.items():
                (folder / name).mkdir(exist_ok=True)
                (folder / name / f"{view.index:04d}{SUFFIXES[name]}").write_bytes(content)


def encoded(name: str, array: np.ndarray) -> bytes:
    """Return the file of a derived layer."""
    if SUFFIXES[name] == ".png":
        return png_bytes(array)
    if SUFFIXES[name] == ".exr":
        return exr_bytes({"Y": array})
    height, width = array.shape[:2]
    known = np.where(np.isnan(array), FLO_UNKNOWN, array).astype("<f4")
    return FLO_MAGIC + np.array([width, height], "<i4").tobytes() + known.tobytes()


def flow(view: View, depth_z: np.ndarray, other: View, other_depth_z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (flow H×W×2, occlusion H×W) from a view to another, as at the top of this file."""
    points = world_points(depth_z, view.intrinsics, view.camera_from_world).reshape(-1, 3)
    pixels, seen = find(points, other_depth_z, other.intrinsics, other.camera_from_world)
    height, width = depth_z.shape
    here = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    moved = (pixels.reshape(height, width, 2) - here).astype(np.float32)
    return moved, np.where(seen.reshape(height, width), 0, OCCLUDED).astype(np.uint8)


def stereo_disparity(depth_z: np.ndarray, focal_px: float, baseline: float) -> np.ndarray:
    """Return H×W float32 disparity in pixels; 0 where depth is 0."""
    depth_z = depth_z.astype(np.float64)
    disparity = np.divide(focal_px * baseline, depth_z, out=np.zeros_like(depth_z), where=depth_z > 0)
    return disparity.astype(np.float32)


def covisibility(views: Sequence[View]) -> np.ndarray:
    """Return N×N float32: [i, j] is the share of what view i sees that view j sees too; 0 if i sees nothing.

    All pixels of small pictures are looked for; of large ones a regular grid of about ``COVISIBILITY_PIXELS``, which
    leaves an error of about half a percent.
    """
    depths = [view.depth_z for view in views]
    grid = regular_grid(depths[0].size / COVISIBILITY_PIXELS)
    shares = np.zeros((len(views), len(views)), np.float32)
    for i, view in enumerate(views):
        points = world_points(depths[i], view.intrinsics, view.camera_from_world)[grid].reshape(-1, 3)
        points = points[np.isfinite(points[:, 0])]
        if len(points):
            for j, other in enumerate(views):
                _, seen = find(points, depths[j], other.intrinsics, other.camera_from_world)
                shares[i, j] = seen.mean()
    return shares


def find(
    points: np.ndarray, depth_z: np.ndarray, intrinsics: np.ndarray, camera_from_world: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (N×2 pixel coordinates, N whether the view sees them) of N×3 world points; NaN are seen nowhere.

    A point is seen if it lies in the picture and its depth there is, within ``SAME_DEPTH``, that of one of the four
    pixels around it, or of a plane through them: surfaces that run away from the camera are not taken for hidden, and
    what lies between two surfaces at an edge is not taken for seen.
    """
    height, width = depth_z.shape
    pixels, z = project(points, intrinsics, camera_from_world)
    with np.errstate(invalid="ignore"):
        inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=1)
    corner = np.floor(np.where(inside[:, None], pixels, 0.5) - 0.5).astype(np.int64)
    right, down = (np.where(inside[:, None], pixels, 0.5) - 0.5 - corner).T
    between, agrees = np.zeros(len(points)), np.zeros(len(points), dtype=bool)
    for du, dv in product((0, 1), (0, 1)):
        found = depth_z[np.clip(corner[:, 1] + dv, 0, height - 1), np.clip(corner[:, 0] + du, 0, width - 1)]
        agrees |= _is_same(z, found)
        weight = np.abs(1 - du - right) * np.abs(1 - dv - down)
        # 1/z is affine in the picture of a plane
        between += np.divide(weight, found, out=np.full(len(points), np.inf), where=found > 0)
    agrees |= _is_same(z, 1 / between)
    return pixels, inside & agrees


def _is_same(z: np.ndarray, depth_z: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (depth_z > 0) & (np.abs(z - depth_z) <= SAME_DEPTH * depth_z)
