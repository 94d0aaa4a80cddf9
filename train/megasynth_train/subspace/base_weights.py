"""The base model's weights as NumPy matrices, for what depends on them: DoRA, and ranks allocated by the base."""

from __future__ import annotations

import numpy as np

from megasynth_train import finetune
from megasynth_train.subspace.dora import BaseWeights
from megasynth_train.training.settings import ModelSettings, TrainSettings
from megasynth_train.vggt.checkpoint import weights_hash


def load_base_weights(settings: ModelSettings) -> BaseWeights:
    """Return the weights that ``settings`` name, random ones if they say so; DatasetError if they do not fit."""
    model = finetune.base_model(TrainSettings(model=settings), [])
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def weight(module: str) -> np.ndarray:
        return np.asarray(weights[f"{module}.weight"].numpy())

    return BaseWeights(weights_hash(model), weight)
