"""Evaluate scenes: prediction, alignment to the truth and all metrics of one scene, and all scenes in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from megasynth_attr.core.errors import DatasetError
from megasynth_train.data.geometry import decode_pose, unproject
from megasynth_train.data.scene import BadScene, TrainingScene
from megasynth_train.evaluate.cameras import camera_summary, pair_errors
from megasynth_train.evaluate.clouds import Registration, compare_clouds, estimate_normals, rigid_icp
from megasynth_train.evaluate.depth import ALIGNMENTS, align_depth, depth_errors
from megasynth_train.evaluate.inputs import SceneInput, View, read_scene
from megasynth_train.evaluate.options import MIN_POINTS, EvaluateSettings
from megasynth_train.evaluate.prediction import PredictedScene, predict
from megasynth_train.evaluate.protocols import PROTOCOLS
from megasynth_train.evaluate.umeyama import umeyama
from megasynth_train.vggt.model import VGGT

_SAMPLE_SEED = 20260411  # of max_points: any fixed number
_MIN_BASELINE = 1e-4  # of the mean distance of the true points: cameras closer than this coincide


@dataclass(frozen=True)
class SceneEvaluation:
    """The numbers of one scene, and the data of its pictures. Clouds and cameras are in the truth's world frame."""

    name: str
    view_ids: tuple[int, ...]
    numbers: dict[str, dict[str, Any]]  # group → metric → number, bool or None
    predicted_points: np.ndarray  # N×3, aligned
    true_points: np.ndarray  # N×3
    colours: np.ndarray  # N×3 uint8, of the same pixels
    accuracy: np.ndarray  # N: distance of each predicted point to the nearest true one
    predicted_cameras: np.ndarray  # S×4×4 camera_from_world, aligned
    true_cameras: np.ndarray
    truth: tuple[View, ...]
    predicted_depth: tuple[np.ndarray, ...]  # per view, at the truth's resolution, times the robust scale


def evaluate_scenes(
    model: VGGT,
    scenes: Iterable[TrainingScene],
    device: torch.device | str,
    settings: EvaluateSettings,
    keep: Callable[[SceneEvaluation], None],
    check: Callable[[], None] = lambda: None,
) -> tuple[list[dict[str, Any]], list[BadScene]]:
    """Return the record of every scene that could be evaluated, and the other scenes with the reason.

    ``keep`` receives each evaluation as soon as it is done, in order; its large arrays are then released. ``check`` is
    called between the stages of each scene and may raise in order to stop.
    A scene is excluded if a file is damaged, it has fewer than 100 valid points, the prediction is not finite, or no
    similarity aligns it.
    """
    records, excluded = [], []
    for scene in scenes:
        check()
        try:
            evaluation = evaluate_scene(model, read_scene(scene, settings, model.config), device, settings, check)
        except DatasetError as error:
            excluded.append(BadScene(scene.name, str(error)))
            continue
        keep(evaluation)
        record = {"name": evaluation.name, "view_ids": list(evaluation.view_ids), **evaluation.numbers}
        protocol = PROTOCOLS.get(settings.protocol)
        if protocol and (warning := protocol.warning(evaluation.colours)):
            record["warning"] = warning
        records.append(record)
    return records, excluded


def evaluate_scene(
    model: VGGT,
    scene: SceneInput,
    device: torch.device | str,
    settings: EvaluateSettings,
    check: Callable[[], None] = lambda: None,
) -> SceneEvaluation:
    """Return all numbers of one scene; docs/training.md explains them and the differences from the released code.

    DatasetError, saying why, for a scene that cannot be evaluated. ``check`` may raise because it is called only
    between the stages: inside one, SciPy's threads would go on writing to freed memory.
    """
    valid = np.concatenate([view.valid.ravel() for view in scene.truth])
    if valid.sum() < MIN_POINTS:
        raise DatasetError(f"{valid.sum()} pixels have a depth; at least {MIN_POINTS} are needed")
    predicted = predict(model, scene.images, device, settings.model.precision)
    check()
    predicted_depth, surfaces = at_truth(predicted, scene.truth, settings.pixel_centre)
    source = np.concatenate([surface.reshape(-1, 3) for surface in surfaces])[valid]
    if not (np.isfinite(source).all() and np.isfinite(predicted.camera_from_world).all()):
        raise DatasetError("the prediction holds NaN or infinite numbers")
    target = np.concatenate([_surface(view).reshape(-1, 3) for view in scene.truth])[valid]
    true_cameras = np.stack([view.camera_from_world for view in scene.truth])
    first = true_cameras[0]
    unit = float(np.linalg.norm(target @ first[:3, :3].T + first[:3, 3], axis=1).mean())

    similarity = umeyama(source, target)  # of all valid pixels
    chosen = _sample(len(source), settings.max_points)
    aligned, truth = similarity.apply(source[chosen]), target[chosen]
    icp = rigid_icp(aligned, truth, max_distance=settings.icp_distance, workers=settings.workers)
    check()
    aligned, similarity = icp.motion.apply(aligned), icp.motion.after(similarity)
    normals = [estimate_normals(points, workers=settings.workers) for points in (aligned, truth)]
    check()
    errors = compare_clouds(aligned, truth, *normals, workers=settings.workers)
    check()

    poses = predicted.camera_from_world.astype(np.float64)
    depth, scale = _depth_numbers(predicted_depth, scene.truth, unit)
    numbers: dict[str, dict[str, Any]] = {
        "points": errors.summary(),
        "depth": depth,
        "cameras": camera_summary(pair_errors(poses, true_cameras, min_baseline=_MIN_BASELINE * unit)),
        "alignment": _alignment_numbers(similarity.scale, icp),
        "sizes": {
            "views": len(scene.truth),
            "valid_points": int(valid.sum()),
            "compared_points": len(aligned),
            "mean_distance": unit,
            "input_height_px": scene.images.shape[-2],
            "input_width_px": scene.images.shape[-1],
        },
    }
    return SceneEvaluation(
        name=scene.name,
        view_ids=scene.view_ids,
        numbers=numbers,
        predicted_points=aligned,
        true_points=truth,
        colours=np.concatenate([view.rgb.reshape(-1, 3) for view in scene.truth])[valid][chosen],
        accuracy=errors.accuracy,
        predicted_cameras=similarity.move_cameras(poses),
        true_cameras=true_cameras,
        truth=scene.truth,
        predicted_depth=tuple(scale * depth_z for depth_z in predicted_depth),
    )


def _alignment_numbers(scale: float, icp: Registration) -> dict[str, Any]:
    return {
        "scale": scale,
        "icp_fitness": icp.fitness,
        "icp_rmse": icp.inlier_rmse,
        "icp_iterations": icp.iterations,
        "icp_converged": icp.converged,
    }


def at_truth(
    predicted: PredictedScene, truth: tuple[View, ...], pixel_centre: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return depth (h×w) and points (h×w×3) of each view at the truth's pixels, float64, in the network's world.

    Depth is resized bilinearly and cameras are decoded for that image size: both images show the same window, and the
    encoding holds angles, not pixels. ``pixel_centre`` is the convention of the model's training, in its own pixels.
    """
    depths, surfaces = [], []
    for depth_z, encoding, view in zip(predicted.depth_z, predicted.pose_encoding, truth, strict=True):
        size_hw = view.depth_z.shape[0], view.depth_z.shape[1]
        depth = torch.from_numpy(depth_z).double()
        if depth.shape != size_hw:
            depth = functional.interpolate(depth[None, None], size_hw, mode="bilinear", antialias=True)[0, 0]
        camera = decode_pose(torch.from_numpy(encoding).double(), size_hw)
        # the offset in pixels of the network's image, converted to pixels of the truth
        centre = 0.5 + (pixel_centre - 0.5) * size_hw[1] / depth_z.shape[1]
        points = unproject(depth, camera.intrinsics, camera.camera_from_world, pixel_centre=centre)
        depths.append(depth.numpy())
        surfaces.append(points.numpy())
    return depths, surfaces


def _surface(view: View) -> np.ndarray:
    """Return the true points of a view in world coordinates, h×w×3 float64."""
    arrays = (view.depth_z, view.intrinsics, view.camera_from_world)
    return unproject(*(torch.from_numpy(np.asarray(array, dtype=np.float64)) for array in arrays)).numpy()


def _depth_numbers(
    predicted: list[np.ndarray], truth: tuple[View, ...], unit: float
) -> tuple[dict[str, dict[str, Any]], float]:
    """Return the depth errors after each alignment (one fit per scene), and the scale of alignment "scale".

    "none" fits nothing: depth is taken in the unit of the network's training, the mean distance of the true points from
    the first camera.
    """
    p = np.concatenate([depth_z.ravel() for depth_z in predicted])
    g = np.concatenate([view.depth_z.ravel() for view in truth]).astype(np.float64)
    valid = g > 0
    fits = {method: align_depth(p, g, valid, method) for method in ALIGNMENTS}
    numbers = {}
    for method, fit in fits.items():
        mapped = unit * p if method == "none" else fit.apply(p)
        numbers[method] = asdict(depth_errors(mapped, g, valid)) | {
            "fit_scale": unit if method == "none" else fit.scale,
            "fit_shift": fit.shift,
        }
    return numbers, fits["scale"].scale


def _sample(count: int, limit: int) -> np.ndarray | slice:
    """Return which of ``count`` points are compared: all, or ``limit`` of them drawn with a fixed seed, in order."""
    if not limit or count <= limit:
        return slice(None)
    return np.sort(np.random.default_rng(_SAMPLE_SEED).choice(count, limit, replace=False))


def facts(numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the numbers shown with a scene on pages and pictures, as text."""
    points, depth, cameras = numbers["points"], numbers["depth"]["scale"], numbers["cameras"]
    auc = cameras["auc_30"]
    return {
        "Acc": f"{points['accuracy_mean']:.4g}",
        "Comp": f"{points['completeness_mean']:.4g}",
        "NC": f"{points['nc_mean']:.4f}",
        "AbsRel (scale)": f"{depth['abs_rel']:.4f}",
        "δ<1.25 (scale)": f"{depth['delta_1']:.4f}",
        "AUC@30": "–" if auc is None else f"{auc:.1f} %",
    }
