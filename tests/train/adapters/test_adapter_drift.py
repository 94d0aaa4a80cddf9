"""Drift against a dense computation, and where it is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_models import adapted_model, small_model, train
from hypothesis import given
from hypothesis import strategies as st

from megasynth_train.adapters import adapt, save_adapter
from megasynth_train.adapters.drift import drift, layer_drift, record

NAME = "aggregator.frame_blocks.0.attn.qkv.lora_A.default.weight"


def dense_angles_deg(now: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the principal angles, largest first, from the eigenvalues of the product of the two projectors."""
    projectors = [np.linalg.pinv(a) @ a for a in (now, start)]
    squared_cosines = np.sort(np.linalg.eigvalsh(projectors[1] @ projectors[0] @ projectors[1]))[::-1][: len(now)]
    return np.degrees(np.arccos(np.sqrt(np.clip(squared_cosines, 0, 1))))[::-1]


@given(st.integers(1, 4), st.integers(5, 9), st.integers(0, 2**32 - 1))
def test_angles_and_change_agree_with_a_dense_oracle(rank: int, inputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = rng.normal(size=(rank, inputs))
    now = start + 0.3 * rng.normal(size=(rank, inputs))
    found = layer_drift(NAME, now, start)
    assert found.relative_change == pytest.approx(np.sqrt(((now - start) ** 2).sum() / (start**2).sum()))
    np.testing.assert_allclose(found.angles_deg, dense_angles_deg(now, start), atol=1e-5)


def test_a_known_rotation_and_a_change_inside_the_row_space() -> None:
    start = np.eye(2, 4)
    turn = np.radians(25.0)
    now = np.array([[np.cos(turn), 0, np.sin(turn), 0], [0, 1, 0, 0]])
    found = layer_drift(NAME, now, start)
    assert found.angles_deg == pytest.approx((25.0, 0.0), abs=1e-6)
    assert found.relative_change == pytest.approx(2 * np.sin(turn / 2) / np.sqrt(2))
    mixed = layer_drift(NAME, np.array([[3.0, 1.0], [1.0, -2.0]]) @ start, start)
    assert mixed.angles_deg == pytest.approx((0.0, 0.0), abs=1e-6) and mixed.relative_change > 1


def test_convolutions_are_flattened() -> None:
    start = np.random.default_rng(0).normal(size=(2, 3, 3, 3))
    found = layer_drift(NAME, start + 0.1, start)
    np.testing.assert_allclose(
        found.angles_deg, dense_angles_deg((start + 0.1).reshape(2, -1), start.reshape(2, -1)), atol=1e-5
    )


@pytest.mark.parametrize("mode", ["lora", "adalora", "heads"])
def test_the_start_is_derived_again_from_the_seed(mode: str) -> None:
    adapted = adapted_model(mode, total_steps=4)
    train(adapted, 2)
    again = adapt(small_model(), adapted.settings, total_steps=4)
    moved = drift(adapted.trainable, again.initial)
    assert moved == drift(adapted.trainable, adapted.initial)
    assert {layer.module for layer in moved} == {n.partition(".lora_A")[0] for n in adapted.trainable if "lora_A" in n}
    assert all(layer.relative_change > 0 for layer in moved)
    assert all(layer.relative_change == 0 for layer in drift(again.trainable, again.initial))


def test_drift_is_written_with_the_adapter(tmp_path: Path) -> None:
    adapted = adapted_model("pissa")
    train(adapted, 2)
    save_adapter(adapted, tmp_path / "adapter", {})
    written = json.loads((tmp_path / "adapter" / "drift.json").read_text())
    assert written == json.loads(json.dumps(record(drift(adapted.trainable, adapted.initial))))
    assert written["summary"]["default"]["layers"] == 32 and written["summary"]["heads"]["layers"] > 0
    layer = written["layers"][0]
    name = f"{layer['module']}.lora_A.default.weight"
    start, now = adapted.initial[name], adapted.trainable[name].detach()
    assert layer["relative_change"] == pytest.approx(float(torch.linalg.norm(now - start) / torch.linalg.norm(start)))
    assert len(layer["angles_deg"]) == 4
