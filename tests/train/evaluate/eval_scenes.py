"""Scenes and a perfect model for the tests of the evaluation: it answers the truth of the images it is shown."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from megasynth_train.data.geometry import encode_pose
from megasynth_train.evaluate.inputs import SceneInput, read_scene, select_scenes
from megasynth_train.evaluate.options import EvaluateSettings
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.model import Prediction

TINY = named_config("vggt-tiny", point_head=False)


def write_scenes(out: Path) -> Path:
    """Write a dataset of 3 ray-cast scenes × 5 views of 56×42 px (a full multiple of the patches) and return it."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "dataset"))
    import synthetic

    words = ("frames=5", "scene_count=3", "render.width_px=56", "render.height_px=42")
    return Path(synthetic.write_dataset(synthetic.config(*words), out))


def fast(data: Path, out: Path, **changes: object) -> EvaluateSettings:
    """Return settings for one small scene after the other, at the images' own size."""
    given = {"width_px": 56, "views": 3, "device": "cpu", "progress": False, "threads": 1, **changes}
    return EvaluateSettings(data=(str(data),), out=str(out), **given)  # type: ignore[arg-type]


class Oracle(torch.nn.Module):
    """Answers with the truth in the network's gauge; ``worsen`` may change poses (S×4×4) and depth (S×H×W) first."""

    def __init__(
        self,
        settings: EvaluateSettings,
        worsen: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] = lambda poses, depth: (poses, depth),
    ) -> None:
        super().__init__()
        self.config = TINY
        self.answers: dict[str, Prediction] = {}
        for scene in select_scenes(settings).scenes:
            given = read_scene(scene, settings, TINY)
            self.answers[_key(given.images)] = _answer(given, worsen)

    def forward(self, images: torch.Tensor) -> Prediction:
        return self.answers[_key(images)]


def _key(images: torch.Tensor) -> str:
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()


def _answer(given: SceneInput, worsen: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Prediction:
    poses = np.stack([view.camera_from_world for view in given.truth])
    depth = np.stack([view.depth_z for view in given.truth]).astype(np.float64)
    intrinsics = np.stack([view.intrinsics for view in given.truth])
    valid = depth > 0
    relative = poses @ np.linalg.inv(poses[0])
    # distances from the first camera, by hand: rays through pixel centres
    v, u = np.mgrid[0 : depth.shape[1], 0 : depth.shape[2]] + 0.5
    rays = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3)
    distances = []
    for pose, k, z, seen in zip(relative, intrinsics, depth, valid, strict=True):
        points = (rays @ np.linalg.inv(k).T) * z.reshape(-1, 1)
        points = (points - pose[:3, 3]) @ pose[:3, :3]
        distances.append(np.linalg.norm(points[seen.ravel()], axis=1))
    unit = np.concatenate(distances).mean()
    relative[:, :3, 3] /= unit
    relative, network_depth = worsen(relative, np.where(valid, depth / unit, 1.0))
    encoding = encode_pose(torch.tensor(relative), torch.tensor(intrinsics), given.truth[0].depth_z.shape)[None]
    answer = torch.tensor(network_depth)[None].float()
    return Prediction((encoding.float(),), answer, answer + 1)
