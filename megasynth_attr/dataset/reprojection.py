"""Unprojection, projection, and the test that depth maps of different views describe the same surfaces.

A pixel of view A, with its depth, is a point X of the world. Along the ray to X, view B sees some surface. The test
compares the predicted depth of X in B with B's depth map, sampled there. Four things need care:

* *Sampling.* X falls between B's pixel centres. Inverse depth is exactly affine in the image of a plane, so B is
  interpolated bilinearly in 1/z: exact on planes at any slant, where nearest-neighbour depth errs by a pixel's slope.
* *One surface.* Interpolation is meaningful only where B's neighbourhood is one smooth surface: the second differences
  of 1/z around the sample are at most ``SMOOTHNESS`` of it, in both directions. This bounds the interpolation error
  below the tolerance, and it drops silhouettes. A is subject to the same condition, so that structures thinner
  than a pixel are left out.
* *Occlusion.* X may lie behind what B sees. It then belongs to a back side (its normal in A points away from B), to
  another surface (normals differ), or it is far behind (more than ``OCCLUSION_MARGIN``): none of these is co-visible.
  X cannot lie in front of what B sees, since B would have seen it; nor can B see the background through X. Both count
  as disagreement, whatever the normals, so a wrong camera cannot pass as "occlusion".
* *Slant.* A surface seen at less than ``MIN_COSINE`` turns rounding into large depth differences and is left out.

**Co-visible** are the pixels of A that fall on one smooth surface (or on plain background) of B and are not occluded.

A constant error of all cameras (half a pixel, 1 % of scale) may change depth by less than the tolerance. So three
numbers are also fitted to the same residuals, a shift of the principal point in pixels (x, y) and a factor of depth
(``Systematic``); for a correct dataset they are 0, 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

TOLERANCE = 0.005  # relative depth difference that counts as agreement
SMOOTHNESS = 0.004  # interpolation error ≤ (1/8)(two second differences): 0.1 %; a hidden step: ≤ 0.4 % < TOLERANCE
OCCLUSION_MARGIN = 0.03
MIN_COSINE = 0.15
SAME_NORMAL = np.cos(np.radians(20))
OVERLAP_SHARE = 0.6  # of the field of view
PARTNER_ANGLES_DEG = (15.0, 40.0, 70.0)  # between the axes of views that are compared
MAX_PIXELS = 20_000  # per pair of views, evenly spaced
PROBE = np.array([0.25, 0.25, 0.0025])  # steps (px, px, factor) of the numerical derivative


@dataclass(frozen=True)
class PairResult:
    """Agreement of one ordered pair of views, and the sums from which systematic errors are solved."""

    tested: int  # pixels of the first view that were looked for in the second
    overlapping: bool  # the optical axes differ so little that the views must share something
    covisible: int
    agreeing: int
    normal_matrix: np.ndarray  # 3×3, sum of JᵀJ
    gradient: np.ndarray  # 3, sum of Jᵀr
    square_sum: float
    fitted: int

    def __add__(self, other: PairResult) -> PairResult:
        """Return the sums over both, of which ``overlapping`` says nothing."""
        mine, theirs = vars(self), vars(other)
        return PairResult(**{name: mine[name] + theirs[name] for name in mine} | {"overlapping": False})


@dataclass(frozen=True)
class Systematic:
    """The error that all cameras have in common; None where these views cannot tell (tiny baselines)."""

    shift_x_px: float | None
    shift_y_px: float | None
    depth_factor: float | None


def camera_centre(camera_from_world: np.ndarray) -> np.ndarray:
    """Return the camera centres (..., 3) in the world of extrinsics (..., 4, 4): −Rᵀ t."""
    rotation, translation = camera_from_world[..., :3, :3], camera_from_world[..., :3, 3]
    return -np.einsum("...ji,...j->...i", rotation, translation)


def pixel_rays(height: int, width: int, intrinsics: np.ndarray) -> np.ndarray:
    """Return H×W×3 camera-space directions with z = 1 through the pixel centres (u + 0.5, v + 0.5)."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(intrinsics).T


def world_points(depth_z: np.ndarray, intrinsics: np.ndarray, camera_from_world: np.ndarray) -> np.ndarray:
    """Return H×W×3 float64 world points of an H×W depth map; NaN where depth is 0."""
    height, width = depth_z.shape
    camera = pixel_rays(height, width, intrinsics) * np.where(depth_z > 0, depth_z, np.nan)[..., None]
    return (camera - camera_from_world[:3, 3]) @ camera_from_world[:3, :3]


def regular_grid(pixels_per_one: float) -> tuple[slice, slice]:
    """Return rows and columns of a regular grid that takes about one in so many pixels; all of them if that is < 4."""
    step = max(1, int(np.sqrt(pixels_per_one)))
    return (slice(step // 2, None, step), slice(step // 2, None, step))


def project(points: np.ndarray, intrinsics: np.ndarray, camera_from_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (N×2 pixel coordinates, N depths z) of N×3 world points; coordinates are NaN behind the camera."""
    camera = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    z = camera[:, 2]
    homogeneous = camera @ intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = np.where(z[:, None] > 0, homogeneous[:, :2] / homogeneous[:, 2:], np.nan)
    return pixels, z


class Surface:
    """What one view sees, prepared for sampling: inverse depth, where it is smooth, world points and normals."""

    def __init__(self, depth_z: np.ndarray, intrinsics: np.ndarray, camera_from_world: np.ndarray) -> None:
        """``depth_z`` H×W (0 = nothing), ``intrinsics`` 3×3, ``camera_from_world`` 4×4."""
        self.depth_z = depth_z.astype(np.float64)
        self.intrinsics = intrinsics
        self.camera_from_world = camera_from_world
        self.hit = self.depth_z > 0
        self.inverse = np.divide(1.0, self.depth_z, out=np.zeros_like(self.depth_z), where=self.hit)
        self.smooth = _smooth(self.inverse, self.hit)
        self.points = world_points(self.depth_z, intrinsics, camera_from_world)
        self.centre = -camera_from_world[:3, :3].T @ camera_from_world[:3, 3]
        self.normals = _normals(self.points, self.centre)

    def sample(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return (depth, on one smooth surface, on plain background, nearest row-column) at N×2 pixel coordinates.

        Depth is NaN where the four pixels around a coordinate are not one smooth surface. Coordinates nearer than
        1.5 px to the border, or NaN, are neither surface nor background.
        """
        height, width = self.hit.shape
        grid = pixels - 0.5  # index coordinates: pixel centres are integers
        inside = ((grid >= 1) & (grid < (width - 2, height - 2))).all(axis=1)
        grid = np.where(inside[:, None], grid, 1.0)
        corner = np.floor(grid).astype(np.int64)
        fraction = grid - corner
        weighted, smooth, empty = np.zeros(len(pixels)), inside.copy(), inside.copy()
        for du, dv in product((0, 1), (0, 1)):
            column, row = corner[:, 0] + du, corner[:, 1] + dv
            weight = np.abs(1 - du - fraction[:, 0]) * np.abs(1 - dv - fraction[:, 1])
            weighted += weight * self.inverse[row, column]
            smooth &= self.smooth[row, column]
            empty &= ~self.hit[row, column]
        depth = np.divide(1.0, weighted, out=np.full(len(pixels), np.nan), where=smooth & (weighted > 0))
        nearest = np.round(grid).astype(np.int64)[:, ::-1]
        return depth, smooth, empty, nearest


def _smooth(inverse: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Return where a pixel and its four neighbours are hit and inverse depth bends by at most ``SMOOTHNESS``."""
    smooth = np.zeros(hit.shape, dtype=bool)
    middle = inverse[1:-1, 1:-1]
    whole = hit[1:-1, 1:-1] & hit[:-2, 1:-1] & hit[2:, 1:-1] & hit[1:-1, :-2] & hit[1:-1, 2:]
    bend_v = np.abs(inverse[:-2, 1:-1] - 2 * middle + inverse[2:, 1:-1])
    bend_u = np.abs(inverse[1:-1, :-2] - 2 * middle + inverse[1:-1, 2:])
    smooth[1:-1, 1:-1] = whole & (np.maximum(bend_u, bend_v) <= SMOOTHNESS * middle)
    return smooth


def _normals(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return H×W×3 unit normals facing the camera, from central differences; NaN at borders and gaps."""
    normals = np.full(points.shape, np.nan)
    along_u = points[1:-1, 2:] - points[1:-1, :-2]
    along_v = points[2:, 1:-1] - points[:-2, 1:-1]
    cross = np.cross(along_u, along_v)
    with np.errstate(invalid="ignore", divide="ignore"):
        cross /= np.linalg.norm(cross, axis=-1, keepdims=True)
        away = np.einsum("hwc,hwc->hw", cross, centre - points[1:-1, 1:-1]) < 0
    normals[1:-1, 1:-1] = np.where(away[..., None], -cross, cross)
    return normals


def compare(a: Surface, b: Surface) -> PairResult:
    """Return how the depth of view ``a``, warped into ``b``, agrees with ``b`` on the co-visible pixels."""
    rows, columns = _even_subset(a.smooth)
    points, normals = a.points[rows, columns], a.normals[rows, columns]
    seen_by_a = _cosine(normals, a.centre - points) >= MIN_COSINE
    towards_b = _cosine(normals, b.centre - points)
    pixels, predicted = project(points, b.intrinsics, b.camera_from_world)
    found, smooth, empty, nearest = b.sample(pixels)
    error = np.divide(predicted - found, found, out=np.full(len(found), np.inf), where=smooth)
    facing = seen_by_a & (towards_b >= MIN_COSINE)
    same = np.einsum("nc,nc->n", normals, b.normals[nearest[:, 0], nearest[:, 1]]) >= SAME_NORMAL
    agreeing = facing & smooth & (np.abs(error) <= TOLERANCE)
    in_front = facing & ((smooth & (error < -TOLERANCE)) | (empty & (predicted > 0)))
    behind = facing & smooth & same & (error > TOLERANCE) & (error <= OCCLUSION_MARGIN)
    near = facing & smooth & same & (np.abs(error) <= OCCLUSION_MARGIN)
    residual = error[near]
    jacobian = _derivatives(a, b, rows[near], columns[near], residual)
    usable = np.isfinite(jacobian).all(axis=1)
    jacobian, residual = jacobian[usable], residual[usable]
    fov_x_deg = 2 * np.degrees(np.arctan(a.hit.shape[1] / 2 / a.intrinsics[0, 0]))
    between_axes_deg = _angles_deg(a.camera_from_world[2, :3], b.camera_from_world[2, :3])
    return PairResult(
        tested=len(rows),
        overlapping=bool(between_axes_deg <= OVERLAP_SHARE * fov_x_deg),
        covisible=int(np.count_nonzero(agreeing | in_front | behind)),
        agreeing=int(np.count_nonzero(agreeing)),
        normal_matrix=jacobian.T @ jacobian,
        gradient=jacobian.T @ residual,
        square_sum=float(residual @ residual),
        fitted=len(residual),
    )


def _derivatives(a: Surface, b: Surface, rows: np.ndarray, columns: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Return n×3: change of the residual per pixel of principal-point shift (x, y) and per unit of depth factor.

    The shift and the factor act on both views, as they would if every camera of the dataset shared the error.
    """
    depth, pose = a.depth_z[rows, columns], a.camera_from_world
    jacobian = np.empty((len(rows), 3))
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))], axis=1)
    for i, step in enumerate(PROBE):
        *offset, growth = step * np.eye(3)[i]
        shift = np.zeros((3, 3))
        shift[:2, 2] = offset
        camera = pixels @ np.linalg.inv(a.intrinsics + shift).T * (depth * (1 + growth))[:, None]
        points = (camera - pose[:3, 3]) @ pose[:3, :3]
        target, predicted = project(points, b.intrinsics + shift, b.camera_from_world)
        found, smooth, _, _ = b.sample(target)
        found = found * (1 + growth)
        error = np.divide(predicted - found, found, out=np.full(len(found), np.nan), where=smooth)
        jacobian[:, i] = (error - residual) / step
    return jacobian


def solve_systematic(pairs: list[PairResult]) -> Systematic:
    """Return the least-squares common error of all cameras over many pairs.

    A quantity is None where its standard error exceeds a tenth of a pixel or 0.1 %: such views (micro-baseline
    trajectories, planes seen frontally) cannot show it.
    """
    count = sum(pair.fitted for pair in pairs)
    if count < 1000:
        return Systematic(None, None, None)
    matrix = sum((pair.normal_matrix for pair in pairs), np.zeros((3, 3)))
    gradient = sum((pair.gradient for pair in pairs), np.zeros(3))
    scale = np.array([1.0, 1.0, 100.0])  # a pixel and a percent weigh alike, for the conditioning
    scaled = matrix / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(scaled)
    if values[0] <= 1e-9 * max(values[-1], 1e-300):
        return Systematic(None, None, None)
    inverse = (vectors / values) @ vectors.T
    solution = -inverse @ (gradient / scale) / scale
    remaining = sum(pair.square_sum for pair in pairs) + float(gradient @ solution)
    # what remains is mostly curvature, equal in neighbouring pixels: only one in 25 counts as independent
    variance = max(remaining / count, 1e-8) * 25
    deviation = np.sqrt(variance * np.diag(inverse)) / scale
    shift = [float(-s) if d <= 0.1 else None for s, d in zip(solution[:2], deviation[:2], strict=True)]
    factor = float(1 / (1 + solution[2])) if deviation[2] <= 1e-3 else None
    return Systematic(shift[0], shift[1], factor)


def choose_pairs(camera_from_world: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Return up to ``count`` ordered pairs (a, b) of view indices, spread over the trajectory.

    The partner of a view is the one whose optical axis differs from its own by as nearly as possible one of
    ``PARTNER_ANGLES_DEG``, taken in turn: near ones certainly overlap, far ones show errors of scale.
    """
    total = len(camera_from_world)
    if total < 2:
        return []
    axes = camera_from_world[:, 2, :3]
    pairs = []
    for number, a in enumerate(np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))):
        angle = _angles_deg(axes, axes[a])
        angle[a] = np.inf
        pairs.append((int(a), int(np.argmin(np.abs(angle - PARTNER_ANGLES_DEG[number % len(PARTNER_ANGLES_DEG)])))))
    return pairs


def _even_subset(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero(mask)
    step = max(1, int(np.ceil(len(rows) / MAX_PIXELS)))
    return rows[::step], columns[::step]


def _angles_deg(axes: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return the angles between unit vectors (…×3) and one of them."""
    return np.degrees(np.arccos(np.clip(axes @ axis, -1, 1)))


def _cosine(normals: np.ndarray, directions: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.einsum("nc,nc->n", normals, directions / np.linalg.norm(directions, axis=1, keepdims=True))
