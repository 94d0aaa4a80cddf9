"""The losses once more, slow and plain: NumPy, double precision, loops, every edge rule of the released code."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from megasynth_train.data.geometry import encode_pose
from megasynth_train.training.normalisation import Target
from megasynth_train.training.settings import LossSettings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """The attributes of a Prediction that the losses read."""

    pose_encodings: tuple[Tensor, ...]
    depth: Tensor | None
    depth_confidence: Tensor | None


def array(values: Tensor | None) -> Array:
    assert values is not None
    return values.detach().double().numpy()


def oracle_filtered_mean(values: Array, quantile: float) -> float:
    if values.size > 1000 and quantile < 1:
        values = np.minimum(values, 100.0)
        nearest = round(quantile * (values.size - 1))  # Python's own rounding, half to even
        kept = values[values < min(np.sort(values)[nearest], 100.0)]
        values = kept if kept.size > 1000 else values
    return float(values.mean())


def oracle_gradient(error: Array, masks: NDArray[np.bool_]) -> float:
    """Loop over images, strides and neighbours."""
    values = []
    for stride in (1, 2, 4, 8):
        total, count = 0.0, 0
        for e, m in zip(error.reshape(-1, *error.shape[2:]), masks.reshape(-1, *masks.shape[2:]), strict=True):
            e, m = e[::stride, ::stride], m[::stride, ::stride]
            count += int(m.sum())
            for r in range(e.shape[0]):
                for c in range(e.shape[1]):
                    for r2, c2 in ((r, c + 1), (r + 1, c)):
                        if r2 < e.shape[0] and c2 < e.shape[1] and m[r, c] and m[r2, c2]:
                            total += min(abs(e[r2, c2] - e[r, c]), 100.0)
        values.append(total / count if count else 0.0)
    return sum(values) / 4


def oracle_depth(answer: Answer, target: Target, settings: LossSettings) -> tuple[float, float, float]:
    masks, truth = target.masks.numpy(), np.clip(array(target.depth), -100, 100)
    if masks.sum() < 100:
        return 0.0, 0.0, 0.0
    error = array(answer.depth) - truth
    r = np.minimum(np.abs(error[masks]), 100.0)
    conf = array(answer.depth_confidence)[masks]
    c = np.clip(r * conf - settings.alpha * np.log(conf), -100.0, 100.0)
    q = settings.quantile
    return oracle_filtered_mean(c, q), oracle_filtered_mean(r, q), oracle_gradient(error, masks)


def oracle_camera(answer: Answer, target: Target, settings: LossSettings) -> list[float]:
    truth = array(encode_pose(target.camera_from_world, target.intrinsics, target.image_size_hw))
    parts: list[list[float]] = [[], [], []]
    for k, encoding in enumerate(answer.pose_encodings):
        weight = settings.gamma ** (len(answer.pose_encodings) - 1 - k)
        stage: list[list[float]] = [[], [], []]
        for b in range(truth.shape[0]):
            pixels = target.masks[b].sum(dim=(1, 2)).tolist()
            if not (pixels[0] > 100 or (settings.camera_valid == "any_frame" and max(pixels) > 100)):
                continue
            for p, g in zip(array(encoding)[b], truth[b], strict=True):
                for part, piece in enumerate((slice(0, 3), slice(3, 7), slice(7, 9))):
                    e = p[piece] - g[piece]
                    if part == 1 and settings.quaternion == "sign_invariant":
                        unit = p[3:7] / np.linalg.norm(p[3:7])
                        e = min(unit - g[3:7], unit + g[3:7], key=lambda d: np.abs(d).sum())
                    stage[part] += [min(abs(x), 100.0) if math.isfinite(x) else 0.0 for x in e]
        for part in range(3):
            parts[part].append(weight * (sum(stage[part]) / len(stage[part]) if stage[part] else 0.0))
    return [sum(part) / len(answer.pose_encodings) for part in parts]
