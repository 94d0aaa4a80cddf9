"""Nothing in a training step makes the host wait for the device.

On the meta device tensors have shapes but no values: whatever would look at a value on the host (item, a Python bool,
boolean indexing, nonzero, a copy to the CPU) raises. So does mixing tensors of the CPU into the device's work.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from megasynth_train.adapters import adapt
from megasynth_train.adapters.parts import groups
from megasynth_train.cost.step import StepShape
from megasynth_train.data.device import prepare
from megasynth_train.training.losses import count, losses
from megasynth_train.training.optimiser import clip_by_group
from megasynth_train.training.pieces import split
from megasynth_train.training.settings import AdapterSettings, DataSettings, LossSettings
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.initialise import random_model

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
from train_step_run import random_batch

SIZES = {"encoder_depth": 1, "camera_depth": 1, "camera_iterations": 2, "image_size_px": 70, "point_head": False}
PLAIN = LossSettings()
OTHER = LossSettings(camera_valid="any_frame", quaternion="sign_invariant", quantile=1.0)


@pytest.fixture(scope="module")
def batch():
    return random_batch(StepShape(2, 3, 70, 70), seed=0, pin=False)


@pytest.mark.parametrize(
    ("mode", "kept", "loss", "data"),
    [
        ("lora", "attention", PLAIN, DataSettings()),
        ("full", "nothing", OTHER, DataSettings(depth_quantile=0.98)),
        ("lora_xs", "everything", PLAIN, DataSettings(scenes_at_once=1)),
    ],
)
def test_step_looks_at_no_value(batch, mode, kept, loss, data):
    model = random_model(named_config("vggt-tiny", **SIZES), seed=0)
    adapt(model, AdapterSettings(mode=mode, rank=2), total_steps=10)
    model.kept = kept
    model.to("meta").train()
    trainable = groups({name: weight for name, weight in model.named_parameters() if weight.requires_grad})
    target = prepare(batch, "meta", data)
    counts = count(target.masks, loss)
    for piece in split(target, data.scenes_at_once):
        objective = losses(model(piece.images), piece, loss, counts).objective
        objective.backward()
    norms = clip_by_group(trainable, 0.5)
    flag = torch.isfinite(torch.stack([objective.detach(), *norms.values()])).all()
    assert flag.is_meta and set(norms) == {"aggregator", "camera", "depth"}


def test_other_window_sizes_look_at_no_value(batch):
    windows = batch.windows.copy()
    windows[0] = (0, 0, 70, 70)  # one scene is not scaled at all
    assert prepare(replace(batch, windows=windows), "meta", DataSettings()).images.is_meta


@pytest.mark.parametrize(
    "look",
    [
        lambda t: t.images.sum().item(),
        lambda t: t.depth[t.masks],
        lambda t: 0 if t.masks.any() else 1,
        lambda t: t.depth.cpu(),
        lambda t: t.depth + torch.ones(2, 3, 70, 70),
    ],
    ids=["item", "boolean index", "bool", "copy", "mixture"],
)
def test_a_look_is_noticed(batch, look):
    target = prepare(batch, "meta", DataSettings())
    with pytest.raises((RuntimeError, NotImplementedError)):
        look(target)
