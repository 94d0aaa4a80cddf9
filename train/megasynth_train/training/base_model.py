"""The model that training, prediction and mining start from, given by the section ``model``."""

from __future__ import annotations

from megasynth_train.training.settings import ModelSettings
from megasynth_train.vggt.checkpoint import load_pretrained
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.model import VGGT


def base_model(settings: ModelSettings, notes: list[str]) -> VGGT:
    """Return the model to start from, on the CPU and without point head; messages for the user are added to ``notes``.

    Raises DatasetError for weights that do not fit.
    """
    config = named_config(settings.size, point_head=False)
    if settings.checkpoint:
        loaded = load_pretrained(settings.checkpoint, config)
        model = loaded.model
        if loaded.removed:
            notes.append(f"{settings.checkpoint}: all tensor names begin with {loaded.removed}, which was removed")
        if loaded.ignored:
            notes.append(f"{settings.checkpoint}: {len(loaded.ignored)} tensors of untrained parts are ignored")
    else:
        model = random_model(config, settings.seed)
        notes.append(f"NOTE: checkpoint= is empty: {settings.size} starts from RANDOM weights (model.seed)")
    return model
