"""PiSSA and LoRA-XS from a kept start: the same to the bit, and nothing is decomposed again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from adapter_models import small_model
from torch import Tensor

from megasynth_train.adapters import Adapted, adapt, save_adapter
from megasynth_train.adapters.inject import keep_start
from megasynth_train.adapters.start import read_start
from megasynth_train.training.settings import AdapterSettings

MODES = ("pissa", "lora_xs")
svd = torch.linalg.svd


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the smaller sides of all matrices that are decomposed from here on."""
    sides: list[int] = []

    def counting(matrix: Tensor, **options: bool) -> tuple[Tensor, ...]:
        sides.append(min(matrix.shape))
        result: tuple[Tensor, ...] = svd(matrix, **options)
        return result

    monkeypatch.setattr(torch.linalg, "svd", counting)
    return sides


def adapted(mode: str, start: Path, seed: int = 3, rank: int = 4) -> Adapted:
    return adapt(small_model(seed), AdapterSettings(mode=mode, rank=rank, seed=5), total_steps=10, start=start)


def everything(of: Adapted) -> dict[str, Tensor]:
    """Return every weight, what LoRA-XS keeps besides, and the initial values that drift is measured from."""
    initial = {f"initial {name}": tensor for name, tensor in of.initial.items()}
    return {**of.model.state_dict(), **of.extra_state(), **initial}


@pytest.mark.parametrize("mode", MODES)
def test_a_kept_start_is_the_same_to_the_bit(mode: str, tmp_path: Path, decomposed: list[int]) -> None:
    start = tmp_path / "start.safetensors"
    first = adapted(mode, start)
    weights = 4 * 2 * first.model.config.depth
    assert decomposed == [24] * weights, "no file yet: every linear of the aggregator"
    keep_start(first, start)
    decomposed.clear()
    again = adapted(mode, start)
    assert 24 not in decomposed
    expected = everything(first)
    assert everything(again).keys() == expected.keys() and again.notes == ()
    for name, tensor in everything(again).items():
        assert torch.equal(tensor, expected[name]), name
    for folder, each in (("first", first), ("again", again)):
        save_adapter(each, tmp_path / folder, {})
    records = [(tmp_path / folder / "adapter.json").read_bytes() for folder in ("first", "again")]
    assert records[0] == records[1], "with the checksums of all files"


@pytest.mark.parametrize("mode", MODES)
def test_a_start_of_something_else_or_a_damaged_one_is_made_again(
    mode: str, tmp_path: Path, decomposed: list[int]
) -> None:
    start = tmp_path / "start.safetensors"
    first = adapted(mode, start)
    keep_start(first, start)
    good = start.read_bytes()
    damaged = bytearray(good)
    damaged[-1] ^= 1
    for content, seed, rank, note in (
        (good, 4, 4, "belongs to other weights or settings and is made again"),
        (good, 3, 3, "belongs to other weights or settings and is made again"),
        (bytes(damaged), 3, 4, "is damaged and made again: its checksum is wrong"),
        (good[:1000], 3, 4, "is damaged and made again: .* cut short"),
    ):
        start.write_bytes(content)
        decomposed.clear()
        other = adapted(mode, start, seed, rank)
        assert 24 in decomposed and len(other.notes) == 1
        assert re.search(note, other.notes[0])
        keep_start(other, start)
        assert read_start(start, other.base.weights_sha256, other.settings)[0], "the next start takes this one"


def test_other_modes_keep_none(tmp_path: Path) -> None:
    keep_start(adapted("lora", tmp_path / "start"), tmp_path / "start")
    assert not list(tmp_path.iterdir())
