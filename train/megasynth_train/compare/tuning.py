"""Learning rates tuned for every trained method by one rule.

Each rate is trained once, with one seed and the budget of all runs, on the training data without its validation scenes,
and measured on these; the best mean distance to the true surface decides. Test data are never looked at.

::

    <out>/tuning/<method>/lr_<rate>/            a run of finetune.py, and evaluation/
    <out>/tuning/<method>/lr_<rate>/trial.json  written last: what it was measured to be, or why it was not
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import from_plain, to_plain
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import json_bytes, read_json
from megasynth_attr.core.temporary import replace_atomically
from megasynth_train.compare.settings import TUNING, trial_folder

SEED = 0
TRIAL, FORMAT = "trial.json", "megasynth-attr learning-rate trial 1"


@dataclass(frozen=True)
class Trial:
    """One learning rate of one method. ``value``: mean distance to the true surface on the validation scenes; None,
    and ``reason`` says why, if the training diverged or a scene could not be measured."""

    method: str
    lr: float
    value: float | None
    reason: str = ""


def write_trial(out: Path, trial: Trial) -> None:
    """Write the result of a trial, whole or not at all."""
    file = trial_folder(out, trial.method, trial.lr) / TRIAL
    replace_atomically(file, json_bytes({"format": FORMAT, "trial": to_plain(trial)}))


def read_trial(out: Path, method: str, lr: float) -> Trial | None:
    """Return the result of a trial, None if there is none yet; DatasetError if it is damaged."""
    file = trial_folder(out, method, lr) / TRIAL
    return from_plain(Trial, read_json(file, FORMAT).get("trial"), str(file)) if file.is_file() else None


def read_trials(out: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[Trial, ...]]:
    """Return the finished trials of every trained method that has some; DatasetError if one is damaged."""
    rates = manifest["identity"].get("tune.lr", [])
    trained = [name for name in manifest["order"] if manifest["methods"][name]["adapter"] is not None]
    found = {name: tuple(one for rate in rates if (one := read_trial(out, name, rate))) for name in trained}
    return {name: trials for name, trials in found.items() if trials}


def chosen(trials: tuple[Trial, ...]) -> Trial | None:
    """Return the best trial, None if no rate could be measured."""
    return min((one for one in trials if one.value is not None), key=lambda one: one.value or 0.0, default=None)


def best_rate(out: Path, method: str, manifest: Mapping[str, Any]) -> float:
    """Return the learning rate that was best; DatasetError if not all have been tried, or none could be measured."""
    trials, rates = read_trials(out, manifest).get(method, ()), manifest["identity"]["tune.lr"]
    if len(trials) < len(rates):
        raise DatasetError(
            f"{len(trials)} of the {len(rates)} learning rates of tune.lr= have been tried for {method}; when the "
            "process that tries the others (another shard) has finished, run the same command again"
        )
    best = chosen(trials)
    if best is None:
        raise DatasetError(
            f"{method}: no learning rate of tune.lr= could be measured ({trials[0].reason}); mend that, remove "
            f"{out / TUNING / method} and run the same command again, or try lower ones with another out="
        )
    return best.lr


def rates_table(trials: Mapping[str, tuple[Trial, ...]]) -> list[list[str]]:
    """Return the tried rates as a table of words, its header first: methods by rates, and the chosen one."""
    rates = sorted({one.lr for of_method in trials.values() for one in of_method})
    rows = [["method", *(f"{rate:g}" for rate in rates), "chosen"]]
    for method, of_method in trials.items():
        value = {one.lr: "failed" if one.value is None else f"{one.value:.4g}" for one in of_method}
        best = chosen(of_method)
        words = f"{best.lr:g}" if best else "none"
        if best and len(rates) > 1 and best.lr in (rates[0], rates[-1]):
            words += " (an end of the range: a better one may lie beyond)"
        rows.append([method, *(value.get(rate, "–") for rate in rates), words])
    return rows
