"""Adapters that cannot be are refused before anything large is allocated or any folder is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from megasynth_attr.core.errors import ConfigError, MegaSynthError
from megasynth_train import finetune
from megasynth_train.adapters import trainable_counts
from megasynth_train.training.settings import AdapterSettings, RunSettings, TrainSettings
from megasynth_train.vggt.config import SIZES

TINY = SIZES["vggt-tiny"]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (AdapterSettings(rank=193), "rank=193"),
        (AdapterSettings(mode="adalora", rank=99_999), "rank=99999"),
        (AdapterSettings(mode="heads", rank=99_999), "rank=99999"),
        (AdapterSettings(mode="pissa", rank=4, head_rank=99_999), "head_rank=99999"),
        (AdapterSettings(rank=97, targets=r"aggregator\..*"), "rank=97"),
    ],
)
def test_a_rank_that_no_layer_can_use_is_refused(settings: AdapterSettings, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"adapter\.{key} is more than any adapted layer can use: .* choose"):
        trainable_counts(TINY, settings)


def test_the_largest_rank_that_a_layer_can_use_is_taken() -> None:
    assert trainable_counts(TINY, AdapterSettings(rank=192))


def test_a_basis_that_cannot_be_read_leaves_no_folder(tmp_path: Path) -> None:
    basis = tmp_path / "basis.safetensors"
    basis.write_bytes(b"no basis")
    adapter = AdapterSettings(mode="subspace", basis=str(basis))
    with pytest.raises(MegaSynthError, match=r"basis\.safetensors"):
        finetune.run(TrainSettings(adapter=adapter, run=RunSettings(out=str(tmp_path / "out"), device="cpu")))
    assert not (tmp_path / "out").exists()
