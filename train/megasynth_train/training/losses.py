"""What training minimises: VGGT's camera and depth losses, on one device and without waiting for it.

Values chosen by a mask are never gathered (a boolean index makes the host wait for the number of hits): all sums run
over fixed shapes with the others set to zero. Predictions at invalid pixels therefore receive a gradient of exactly 0,
even where they are not finite, and every prediction stays in the graph, as distributed training demands.

A step may go through the model in pieces, some scenes at a time. Each piece is then divided by the ``Counts`` of the
whole step, and the pieces' losses are added. Camera and gradient losses are those of the undivided step, up to
rounding. The other two depth losses are so only without a quantile: with one, each piece is filtered by a quantile of
its own, and weighs as much as its share of the step's valid pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from megasynth_attr.core.errors import ConfigError
from megasynth_train.data.geometry import encode_pose
from megasynth_train.training.normalisation import Target
from megasynth_train.training.settings import LossSettings
from megasynth_train.vggt.model import Prediction

LIMIT = 100.0  # cap of every single term and of every target
MIN_CAMERA_PIXELS = 100  # a scene enters the camera loss with more valid pixels than this
MIN_DEPTH_PIXELS = 100  # with fewer valid pixels in the whole batch there is no depth loss
MIN_FILTERED = 1000  # the outlier filter needs, and leaves, more values than this
FOV_WEIGHT = 0.5
STRIDES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Losses:
    """The objective and its terms before weighting (scalars; the objective is the one to differentiate)."""

    objective: Tensor
    camera: Tensor
    translation: Tensor
    rotation: Tensor
    fov: Tensor
    depth_confidence: Tensor
    depth_regression: Tensor
    depth_gradient: Tensor

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, detached scalar on the device), for logging."""
        for field in fields(self):
            yield field.name, getattr(self, field.name).detach()


@dataclass(frozen=True)
class Counts:
    """What the losses of a step are divided by: numbers of frames and pixels, scalars on the device."""

    camera_frames: Tensor  # of the scenes that count in the camera loss
    pixels: Tensor  # valid ones
    grid_pixels: tuple[Tensor, ...]  # valid ones of the grid of each of ``STRIDES``


def count(masks: Tensor, settings: LossSettings) -> Counts:
    """Return the counts of the scenes with these masks of valid pixels [B, S, H, W]."""
    frames = _camera_scenes(masks, settings).sum() * masks.shape[1]
    return Counts(frames, masks.sum(), tuple(masks[..., ::stride, ::stride].sum() for stride in STRIDES))


def losses(prediction: Prediction, target: Target, settings: LossSettings, step: Counts | None = None) -> Losses:
    """Return objective = ``settings.camera`` x camera + ``settings.depth`` x (confidence + regression + gradient).

    ``step``: counts of the whole step, if ``target`` is only a piece of it.
    A model without one of the two heads needs weight 0 for that head's losses (otherwise ConfigError); they are then
    reported as 0.
    """
    step = step or count(target.masks, settings)
    nothing = target.depth.new_zeros(())
    translation = rotation = fov = confidence = regression = gradient = nothing
    if prediction.pose_encodings:
        translation, rotation, fov = camera_losses(prediction.pose_encodings, target, settings, step)
    elif settings.camera:
        raise ConfigError(f"loss.camera={settings.camera:g}, but this model has no camera head; set loss.camera=0")
    if prediction.depth is not None and prediction.depth_confidence is not None:
        confidence, regression, gradient = depth_losses(
            prediction.depth, prediction.depth_confidence, target.depth, target.masks, settings, step
        )
    elif settings.depth:
        raise ConfigError(f"loss.depth={settings.depth:g}, but this model has no depth head; set loss.depth=0")
    camera = translation + rotation + FOV_WEIGHT * fov
    objective = settings.camera * camera + settings.depth * (confidence + regression + gradient)
    return Losses(objective, camera, translation, rotation, fov, confidence, regression, gradient)


def camera_losses(
    pose_encodings: Sequence[Tensor], target: Target, settings: LossSettings, step: Counts
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean absolute errors of translation, quaternion and fields of view over all K refinements.

    Each is (1/K) sum_k gamma^(K-1-k) e_k, e_k the mean over the step's valid scenes, their frames and the 3, 4 or 2
    numbers of refinement k [B, S, 9]. A scene is valid if its first frame (``camera_valid=any_frame``: any frame) has
    more than 100 valid pixels; without one, all three are 0. A difference that is not finite counts as 0, one beyond
    100 as 100.
    Division is by K, not by the sum of the weights, as in the released code.
    """
    truth = encode_pose(target.camera_from_world, target.intrinsics, target.image_size_hw).float()  # [B, S, 9]
    truth = torch.nan_to_num(truth, nan=0.0, posinf=0.0, neginf=0.0)
    valid, frames = _camera_scenes(target.masks, settings), step.camera_frames.clamp_min(1)
    refinements = len(pose_encodings)
    total = truth.new_zeros(3)
    for k, encoding in enumerate(pose_encodings):
        errors = _pose_errors(encoding.float(), truth, settings.quaternion).clamp(max=LIMIT)  # [B, S, 9]
        sums = _only(errors, valid[:, None, None]).sum(dim=(0, 1))  # [9]
        means = torch.stack([part.mean() for part in sums.split([3, 4, 2])]) / frames
        total = total + settings.gamma ** (refinements - 1 - k) / refinements * means
    translation, rotation, fov = total.unbind()
    return translation, rotation, fov


def _camera_scenes(masks: Tensor, settings: LossSettings) -> Tensor:
    """Return which scenes [B] count in the camera loss."""
    enough = masks.sum(dim=(2, 3)) > MIN_CAMERA_PIXELS  # [B, S]
    return enough.any(dim=1) if settings.camera_valid == "any_frame" else enough[:, 0]


def _pose_errors(encoding: Tensor, truth: Tensor, quaternion: str) -> Tensor:
    """Return |encoding - truth| [B, S, 9]; the quaternion part normalised and up to sign if asked for."""
    raw = _finite_abs(encoding - truth)
    if quaternion == "raw":
        return raw
    predicted, true = torch.nn.functional.normalize(encoding[..., 3:7], dim=-1), truth[..., 3:7]
    same, opposite = _finite_abs(predicted - true), _finite_abs(predicted + true)
    nearer = torch.where((same.sum(-1) <= opposite.sum(-1)).unsqueeze(-1), same, opposite)
    return torch.cat([raw[..., :3], nearer, raw[..., 7:]], dim=-1)


def _finite_abs(difference: Tensor) -> Tensor:
    """Return |difference|, 0 where it is not finite; chosen before the absolute value, so that gradients are 0 too."""
    return _only(difference, torch.isfinite(difference)).abs()


def depth_losses(
    depth: Tensor, confidence: Tensor, truth: Tensor, masks: Tensor, settings: LossSettings, step: Counts
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the confidence-weighted, the plain and the gradient loss of normalised depth; all arguments [B, S, H, W].

    With r = min(|truth - depth|, 100) at valid pixels: mean of filter(r conf - alpha log conf), mean of filter(r) (see
    ``filtered_mean``; the two are filtered independently), and ``gradient_loss``. In a piece of a step both means are
    those of the piece, times its share of the step's valid pixels. All are 0 with fewer than 100 valid pixels in the
    step. Values that are not finite at valid pixels are not hidden: the losses are then not finite either.
    """
    truth = truth.clamp(-LIMIT, LIMIT)
    difference = _only(depth.float() - truth, masks)
    confidence = confidence.float().masked_fill(~masks, 1.0)
    residual = difference.abs().clamp(max=LIMIT)
    weighted = (residual * confidence - settings.alpha * torch.log(confidence)).clamp(-LIMIT, LIMIT)
    share = masks.sum() / step.pixels.clamp_min(1)  # exactly 1 for a whole step
    terms = (
        filtered_mean(weighted, masks, settings.quantile) * share,
        filtered_mean(residual, masks, settings.quantile) * share,
        gradient_loss(difference, masks, step.grid_pixels),
    )
    enough = step.pixels >= MIN_DEPTH_PIXELS
    first, second, third = (_only(term, enough) for term in terms)
    return first, second, third


def filtered_mean(values: Tensor, masks: Tensor, quantile: float) -> Tensor:
    """Return the mean of the masked values below their ``quantile`` (0 without any).

    With more than 1000 values they are capped at 100, and only those strictly below the quantile count, if there are
    more than 1000 of them. ``quantile`` = 1: the plain mean of all. The threshold is not differentiated.

    The released code takes the quantile of a random million if there are more than 1e8 values (48 views of 518 x 518
    are 1.3e7). Here it is exact at every size: no random number is needed, and none is drawn.
    """
    kept = masks
    if quantile < 1.0:
        count = masks.sum()
        many = count > MIN_FILTERED
        values = torch.where(many, values.clamp(max=LIMIT), values)
        threshold = masked_quantile(values.detach(), masks, quantile)
        low = masks & ~(values >= threshold)  # not "<": a NaN must stay and show
        kept = torch.where(many & (low.sum() > MIN_FILTERED), low, masks)
    return _only(values, kept).sum() / kept.sum().clamp_min(1)


def masked_quantile(values: Tensor, masks: Tensor, quantile: float) -> Tensor:
    """Return the nearest-rank quantile of the masked values: the (round(quantile (n - 1)) + 1)-th smallest of n.

    Rounding is half to even. Without masked values it is -inf. Selects only the upper tail, whose length is bounded by
    that of an unmasked array: with m = n - 1, the rank from the top, m - round(quantile m), never falls as m grows.
    """
    flat = values.masked_fill(~masks, float("-inf")).flatten()
    longest = flat.numel() - 1
    tail = torch.topk(flat, longest - round(quantile * longest) + 1).values  # falling
    last = (masks.sum() - 1).clamp_min(0)
    rank = last - torch.round(last.double() * quantile).long()
    return tail.gather(0, rank.unsqueeze(0)).squeeze(0)  # indexing by a tensor scalar would wait for it


def gradient_loss(difference: Tensor, masks: Tensor, grid_pixels: Sequence[Tensor]) -> Tensor:
    """Return the mean over strides 1, 2, 4, 8 of sum(|d/dx e| + |d/dy e|) / (number of valid pixels of the step).

    ``difference`` e [B, S, H, W] is 0 where ``masks`` is false. Differences of neighbours on the strided grid count
    where both pixels are valid, at most 100 each. A stride without valid pixels contributes 0.
    """
    total = difference.new_zeros(())
    for stride, pixels in zip(STRIDES, grid_pixels, strict=True):
        e, valid = difference[..., ::stride, ::stride], masks[..., ::stride, ::stride]
        along_x = _only(e[..., 1:] - e[..., :-1], valid[..., 1:] & valid[..., :-1])
        along_y = _only(e[..., 1:, :] - e[..., :-1, :], valid[..., 1:, :] & valid[..., :-1, :])
        steps = along_x.abs().clamp(max=LIMIT).sum() + along_y.abs().clamp(max=LIMIT).sum()
        total = total + steps / pixels.clamp_min(1)
    return total / len(STRIDES)


def _only(values: Tensor, where: Tensor) -> Tensor:
    """Return values where ``where`` is true, else 0 (value and gradient).

    Not torch.where with a number: that copies the number to the GPU and waits for the copy.
    """
    return values.masked_fill(~where, 0.0)
