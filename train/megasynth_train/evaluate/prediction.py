"""What a model predicts for one scene: cameras, depth and points, as arrays on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, is_out_of_memory
from megasynth_train.data.geometry import decode_pose, unproject
from megasynth_train.vggt.model import VGGT
from megasynth_train.vggt.precision import autocast


@dataclass(frozen=True)
class PredictedScene:
    """What the model predicts for S views of one scene; float32 arrays on the host.

    The world frame is that of the first camera. The unit of length is the network's own, in which a scene's points are
    at a mean distance of about 1 from the first camera. Cameras are OpenCV: x right, y down, z forward.
    """

    pose_encoding: np.ndarray  # [S, 9], see geometry.py
    camera_from_world: np.ndarray  # [S, 4, 4]
    intrinsics: np.ndarray  # [S, 3, 3], pixels of the network's input
    depth_z: np.ndarray  # [S, H, W]
    confidence: np.ndarray  # [S, H, W], above 1
    points_world: np.ndarray  # [S, H, W, 3]


@torch.inference_mode()
def predict(
    model: VGGT,
    images: torch.Tensor,
    device: torch.device | str,
    precision: str = "auto",
    *,
    pixel_centre: float = 0.5,
) -> PredictedScene:
    """Return the prediction for one scene's ``images`` (float [S, 3, H, W], RGB in [0, 1]), all views in one pass.

    The model is moved to ``device`` and put into evaluation mode. Points come from the predicted depth and cameras,
    not from the point head. Raises ConfigError if the model lacks the camera or the depth head, EnvironmentProblem if
    the device runs out of memory.
    """
    device = torch.device(device)
    model.to(device).eval()
    size_hw = (images.shape[-2], images.shape[-1])
    try:
        with autocast(device, precision):
            answer = model(images.to(device))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise EnvironmentProblem(
            f"{len(images)} views of {size_hw[1]}×{size_hw[0]} px do not fit into the memory of {device}; use fewer "
            "(max_views=, stride=) or a smaller width_px="
        ) from error
    if not answer.pose_encodings or answer.depth is None or answer.depth_confidence is None:
        raise ConfigError("this model has no camera head or no depth head; both are needed for points")
    encoding = answer.pose_encodings[-1][0].float()
    cameras = decode_pose(encoding, size_hw)
    depth_z = answer.depth[0].float()
    points = unproject(depth_z, cameras.intrinsics, cameras.camera_from_world, pixel_centre=pixel_centre)
    arrays = (
        encoding,
        cameras.camera_from_world,
        cameras.intrinsics,
        depth_z,
        answer.depth_confidence[0].float(),
        points,
    )
    return PredictedScene(*(array.cpu().numpy() for array in arrays))


def confident(scene: PredictedScene, visible: np.ndarray, drop_percent: float) -> np.ndarray:
    """Return which points [S, H, W] to keep: visible, finite, and not among the ``drop_percent`` % least confident."""
    usable = visible & np.isfinite(scene.points_world).all(axis=-1) & np.isfinite(scene.confidence)
    if not usable.any():
        return usable
    return usable & (scene.confidence >= np.percentile(scene.confidence[usable], drop_percent))
