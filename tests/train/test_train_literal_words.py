"""Text arrives at every training program as it was typed."""

from __future__ import annotations

from typing import Any

import pytest
from literal_words import NOT_UTF8, WORDS, arrived, text_keys

from megasynth_train.basis import BasisSettings
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.evaluate.options import EvaluateSettings
from megasynth_train.experiment.settings import Keys
from megasynth_train.export_lora import ExportSettings
from megasynth_train.inspect import InspectSettings
from megasynth_train.mine import MineSettings
from megasynth_train.predict import PredictSettings
from megasynth_train.training.cluster_manifest import ClusterSettings
from megasynth_train.training.settings import TrainSettings

PROGRAMS = {
    "finetune": (TrainSettings, ["data.sources", "run.out"]),
    "cluster": (ClusterSettings, ["experiment", "data.sources", "run.out"]),
    "mine": (MineSettings, ["out"]),
    "compare": (CompareSettings, ["data.sources", "test.data", "basis", "run.out"]),
    "evaluate": (EvaluateSettings, ["data", "out", "adapter"]),
    "inspect": (InspectSettings, ["data", "picture"]),
    "predict": (PredictSettings, ["images", "out", "adapter"]),
    "basis": (BasisSettings, ["show", "random", "out"]),
    "export_lora": (ExportSettings, ["adapter", "out", "basis"]),
    "training.": (Keys, ["compare.data.sources", "model.checkpoint"]),
}


@pytest.mark.parametrize(("kind", "some"), PROGRAMS.values(), ids=PROGRAMS)
def test_every_text_of_every_program_arrives_unchanged(kind: Any, some: list[str]) -> None:
    keys = text_keys(kind)
    assert set(some) <= set(keys)
    for word in [*WORDS, NOT_UTF8]:
        assert arrived(kind, word) == dict.fromkeys(keys, word)
