"""A step in pieces: some of its scenes go through the model at a time, so that their activations fit the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch

from megasynth_train.training.normalisation import Target
from megasynth_train.vggt.model import Prediction


def split(target: Target, scenes_at_once: int) -> list[Target]:
    """Return the scenes of ``target`` in order, at most ``scenes_at_once`` in each piece (0: all in one)."""
    scenes = len(target.images)
    columns = [getattr(target, field.name).split(scenes_at_once or scenes) for field in fields(Target)]
    return [Target(*values) for values in zip(*columns, strict=True)]


def join(predictions: Sequence[Prediction]) -> Prediction:
    """Return the predictions for consecutive scenes as one."""
    poses = [torch.cat(each) for each in zip(*(p.pose_encodings for p in predictions), strict=True)]
    dense = {}
    for name in ("depth", "depth_confidence", "points", "points_confidence"):
        parts = [getattr(prediction, name) for prediction in predictions]
        dense[name] = None if parts[0] is None else torch.cat(parts)
    return Prediction(tuple(poses), **dense)
