"""Do cameras and depth of neighbouring views describe the same surfaces, and if not, what would make them?

A pixel of view a, with its depth, is a point X of the world. On the ray to X, view b sees some surface, which is a
point Y; back in a, Y lies some pixels away from where X began: the **reprojection error**. With right cameras it is 0
except where b sees something in front of X, and the median over all pixels ignores that. Nothing is left out for
disagreeing, so a wrong axis cannot hide. Surfaces that are far too far away have no parallax, though, and no error in
pixels; so the depth of X in b is compared with b's own, too.

Where the error is large, the mistakes that people make are undone one by one (``MISTAKES``): one whose undoing makes
the error small is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import map_coordinates

from megasynth_attr.dataset.reprojection import camera_centre, pixel_rays, project, world_points
from megasynth_train.data.frames import FrameArrays
from megasynth_train.data.scene import TrainingScene

MOST_PIXELS = 20_000  # of a view, evenly spaced
LEAST_OVERLAP = 0.05  # of a view's pixels; less says nothing
GOOD_PX, BAD_PX = 1.0, 3.0  # reprojection errors that are fine, and that are not
GOOD_DEPTH, BAD_DEPTH = 0.03, 0.1  # relative errors of depth, likewise
_PLAUSIBLE = 300.0  # times the cameras' spread: what is farther or nearer is most likely in another unit
_STILL = 1e6  # times that spread: what is left of it is rounding
_BEHIND = 1.05  # times the depth that b sees: farther points are hidden from it
_BETTER = 1.5  # times more pixels agree after a mistake is undone
_ANGLE_DEG = 12.0  # between neighbours: they share much, and their difference shows
_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_POWERS = (1e-3, 1e3, 1e-2, 1e2, 0.1, 10.0)


@dataclass(frozen=True)
class Agreement:
    """What one or several pairs of views say: median errors, in pixels and of depth (relative; NaN without overlap),
    the shared part of the pixels, and the part that also agrees.
    """

    error_px: float
    depth_error: float
    overlap: float
    agreeing: float

    @property
    def is_good(self) -> bool:
        return self.overlap >= LEAST_OVERLAP and self.error_px <= GOOD_PX and self.depth_error <= GOOD_DEPTH

    @property
    def is_bad(self) -> bool:
        """Return whether something is wrong; too little overlap proves nothing."""
        return self.overlap >= LEAST_OVERLAP and (self.error_px > BAD_PX or self.depth_error > BAD_DEPTH)


_NOTHING = Agreement(float("nan"), float("nan"), 0.0, 0.0)


@dataclass(frozen=True)
class Mistake:
    """A common mistake: ``words`` go on from "they agree once"; ``factor`` of depth that undoes it, 1 for others."""

    words: str
    undone: Callable[[FrameArrays], FrameArrays]
    factor: float = 1.0


def neighbours(camera_from_world: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Return up to ``count`` pairs of S views (S×4×4), the first of each evenly spread over all, turned against each
    other by about 12°, the nearer the better.
    """
    axes, places = camera_from_world[:, 2, :3], camera_centre(camera_from_world)
    pairs = []
    for a in np.unique(np.linspace(0, len(axes) - 1, min(count, len(axes))).round().astype(int)):
        angle = np.degrees(np.arccos(np.clip(axes @ axes[a], -1, 1)))
        distance = np.linalg.norm(places - places[a], axis=1)
        cost = np.abs(angle - _ANGLE_DEG) + 5 * distance / max(distance.max(), 1e-12)
        cost[a] = np.inf
        if np.isfinite(cost).any():
            pairs.append((int(a), int(np.argmin(cost))))
    return pairs


def agreement(pairs: Iterable[tuple[FrameArrays, FrameArrays]]) -> Agreement:
    """Return how pairs of views agree: the median of their errors, and the mean of what they share."""
    each = [_pair(a, b) for a, b in pairs]
    if not each:
        return _NOTHING
    overlap, agreeing = np.mean([(one.overlap, one.agreeing) for one in each], axis=0).tolist()
    errors = [(one.error_px, one.depth_error) for one in each if one.overlap >= LEAST_OVERLAP]
    if not errors:
        return replace(_NOTHING, overlap=overlap)
    error_px, depth_error = np.median(errors, axis=0).tolist()
    return Agreement(error_px, depth_error, overlap, agreeing)


def find_mistake(frames: Sequence[FrameArrays], enough: float) -> Mistake | None:
    """Return the mistake after whose undoing the views agree, on more than ``enough`` of the pixels; None if none does.

    Of several it is the one after which most of the pixels agree.
    """
    found = [(agreement(pairs_of([one.undone(frame) for frame in frames])), one) for one in MISTAKES]
    good = [(then.agreeing, i) for i, (then, _) in enumerate(found) if then.is_good and then.agreeing > enough]
    return found[max(good)[1]][1] if good else None


@dataclass(frozen=True)
class Doubt:
    """Why cameras and depth do not fit, in one sentence. Not ``certain``: noise could be the reason."""

    words: str
    certain: bool = True


def doubt(frames: Sequence[FrameArrays], now: Agreement, unit: float, reach: float) -> Doubt | None:
    """Return why cameras and depth of views of one scene cannot both be right, None if nothing speaks against them.

    ``unit``: what a number in the depth files means now, 0 if that is no choice; ``reach``: see ``reach_of``.
    """
    is_far = reach > _PLAUSIBLE or reach < 1 / _PLAUSIBLE
    if now.is_good and not is_far:
        return None
    if not now.is_good and (value := constant_depth(frames)):
        return Doubt(
            f"depth is constant: in all views looked at, every pixel that has one says {value:g}; such files hold no "
            "depth of a scene"
        )
    off = f"are {now.error_px:.2f} px and {100 * now.depth_error:.1f} % of depth off"
    off = off if now.overlap >= LEAST_OVERLAP else "share nothing"
    conflict = f"cameras and depth contradict each other: neighbouring views {off}"
    senseless = f"depth makes no sense: at the median it is {reach:.2g} times as far as the cameras lie apart"
    if (mistake := find_mistake(frames, _BETTER * now.agreeing)) is not None:
        advice = f"; say depth_unit={unit * mistake.factor:g}" if mistake.factor != 1 and unit else ""
        return Doubt(f"{senseless if now.is_good else conflict}; they agree once {mistake.words}{advice}")
    if reach > _STILL:
        return Doubt("the cameras do not move: all views are from one place, which tells nothing of depth", False)
    if is_far:
        return Doubt(
            f"{senseless}. Unless these hardly move, it has another unit than they; say depth_unit=, e.g. 0.001 for "
            "millimetres",
            certain=not now.is_good,
        )
    return Doubt(f"{conflict}, and no common mistake explains it", certain=False) if now.is_bad else None


def constant_depth(frames: Sequence[FrameArrays]) -> float:
    """Return the only depth that the pixels of several views have, 0 if they have several or none."""
    found = np.unique(np.concatenate([frame.depth_z[frame.depth_z > 0] for frame in frames]))
    return float(found[0]) if len(found) == 1 and len(frames) > 1 else 0.0


def reach_of(depth_z: np.ndarray, camera_from_world: np.ndarray) -> float:
    """Return the median of valid depths by the median distance of S×4×4 cameras from their middle; NaN without depth
    or for one camera, infinity for cameras that do not move.
    """
    places = camera_centre(camera_from_world)
    spread = float(np.median(np.linalg.norm(places - places.mean(axis=0), axis=1)))
    if not len(depth_z) or len(places) < 2:
        return float("nan")
    return float(np.median(depth_z)) / spread if spread > 0 else float("inf")


def warp(a: FrameArrays, b: FrameArrays) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture of ``b`` as seen from ``a``, H×W×3 uint8, and where it is known: a has depth, and the point is
    inside b and not behind what b sees.
    """
    height, width = a.depth_z.shape
    points = world_points(a.depth_z, a.intrinsics, a.camera_from_world).reshape(-1, 3)
    pixels, z = project(points, b.intrinsics, b.camera_from_world)
    known = _inside(pixels, b.depth_z.shape)
    at = np.where(known[:, None], pixels - 0.5, 0).T[::-1]
    met = map_coordinates(b.depth_z, at, order=0, mode="nearest")
    known &= (met == 0) | (z <= met * _BEHIND)
    colours = np.stack([map_coordinates(b.rgb[..., c], at, order=1, mode="nearest") for c in range(3)], axis=-1)
    return colours.reshape(height, width, 3), known.reshape(height, width)


def sample_frames(scene: TrainingScene, count: int) -> list[FrameArrays]:
    """Return views of a scene, decoded: ``count``, evenly spread, the neighbour of each, and the one that follows it in
    the files, which is a neighbour even where poses are wrong. DatasetError for a damaged file.
    """
    poses = np.array([view.camera_from_world for view in scene.stored_views()])
    pairs = neighbours(poses, count)
    wanted = {0} | {view for a, b in pairs for view in (a, b, min(a + 1, len(poses) - 1))}
    return scene.read_views(sorted(wanted))


def pairs_of(frames: Sequence[FrameArrays]) -> list[tuple[FrameArrays, FrameArrays]]:
    """Return every frame with its neighbour among the others."""
    poses = np.array([frame.camera_from_world for frame in frames])
    return [(frames[a], frames[b]) for a, b in neighbours(poses, len(frames))]


def _pair(a: FrameArrays, b: FrameArrays) -> Agreement:
    rows, columns = np.nonzero(a.depth_z > 0)
    step = max(1, -(-len(rows) // MOST_PIXELS))
    rows, columns = rows[::step], columns[::step]
    if len(rows) == 0:
        return _NOTHING
    points = world_points(a.depth_z, a.intrinsics, a.camera_from_world)[rows, columns]
    pixels, z = project(points, b.intrinsics, b.camera_from_world)
    inside = _inside(pixels, b.depth_z.shape)
    at = np.where(inside[:, None], pixels - 0.5, 0).T[::-1]
    valid = b.depth_z > 0
    inverse = np.divide(1.0, b.depth_z, out=np.zeros(b.depth_z.shape), where=valid)  # affine on planes
    met = inside & (map_coordinates(valid.astype(np.float64), at, order=1, mode="nearest") > 1 - 1e-6)
    if not met.any():
        return _NOTHING
    depth = 1 / map_coordinates(inverse, at[:, met], order=1, mode="nearest")
    rays = np.concatenate([pixels[met], np.ones((met.sum(), 1))], axis=1) @ np.linalg.inv(b.intrinsics).T
    seen = (rays * depth[:, None] - b.camera_from_world[:3, 3]) @ b.camera_from_world[:3, :3]
    back, _ = project(seen, a.intrinsics, a.camera_from_world)
    away = np.linalg.norm(back - np.stack([columns, rows], axis=1)[met] - 0.5, axis=1)
    away, off = np.where(np.isnan(away), np.inf, away), np.abs(z[met] / depth - 1)
    agreeing = np.count_nonzero((away <= GOOD_PX) & (off <= GOOD_DEPTH)) / len(met)
    return Agreement(float(np.median(away)), float(np.median(off)), float(met.mean()), agreeing)


def _inside(pixels: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """Return which N×2 coordinates lie between the centres of an image's pixels; NaN does not."""
    height, width = size_hw
    return ((pixels >= 0.5) & (pixels <= (width - 0.5, height - 0.5))).all(axis=1)


def _posed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[FrameArrays], FrameArrays]:
    return lambda frame: replace(frame, camera_from_world=change(frame.camera_from_world))


def _scaled(factor: float) -> Callable[[FrameArrays], FrameArrays]:
    return lambda frame: replace(frame, depth_z=frame.depth_z * np.float32(factor))


def _planar(frame: FrameArrays) -> FrameArrays:
    """Return the frame with its depth taken as distance from the camera, not along the optical axis."""
    height, width = frame.depth_z.shape
    length = np.linalg.norm(pixel_rays(height, width, frame.intrinsics), axis=-1)
    return replace(frame, depth_z=(frame.depth_z / length).astype(np.float32))


MISTAKES = (
    Mistake(
        "poses are inverted: they are the other way round (camera-to-world, world-to-camera)", _posed(np.linalg.inv)
    ),
    Mistake(
        "y and z of the camera are turned round: its axes are OpenGL's, not OpenCV's", _posed(lambda m: _OPENGL @ m)
    ),
    Mistake(
        "poses are inverted and y and z of the camera turned round: they are camera-to-world with OpenGL's axes",
        _posed(lambda m: _OPENGL @ np.linalg.inv(m)),
    ),
    *(
        Mistake(f"depth is multiplied by {factor:g}: it has another unit than the cameras", _scaled(factor), factor)
        for factor in _POWERS
    ),
    Mistake("depth is taken as distance from the camera instead of along its axis", _planar),
)
