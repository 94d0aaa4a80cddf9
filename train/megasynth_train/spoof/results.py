"""What the spoof test writes: every scene's numbers, each run's separation of the classes, and a table of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from megasynth_attr import __version__
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.pages.words import markdown_table, spread_text
from megasynth_train.data.scene import BadScene
from megasynth_train.evaluate.page import PageScene
from megasynth_train.spoof.measure import equal_error_rate, roc_auc

FORMAT = "megasynth-attr spoof test 1"
CLASSES = ("printed", "real")
TRUTH = "truth"  # the row of the true points: what a perfect model would reach
COLUMNS = {
    "flat printed": "planarity_printed",
    "flat real": "planarity_real",
    "AUC": "auc",
    "EER": "eer",
    "Acc": "accuracy_mean",
    "Comp": "completeness_mean",
    "NC": "nc_mean",
}
UNITS = (
    "flat: RMS distance of a scene's points to their best plane ÷ RMS distance to their centre, 0 for a plane, at most "
    "0.577; mean over the scenes. AUC: probability that a real scene is less flat than a printed one, 0.5 by chance. "
    "EER: share of both classes taken for the other at the threshold where the two shares are equal. Acc, Comp (scene "
    "units) and NC: of the printed scenes, as evaluate measures them. ± is the standard deviation over seeds."
)


@dataclass
class RunScenes:
    """What one model made of the scenes of both classes: name → numbers, and what the page shows of the first ones."""

    method: str
    seed: int | None
    scenes: dict[str, dict[str, dict[str, float]]] = field(default_factory=lambda: {name: {} for name in CLASSES})
    excluded: list[BadScene] = field(default_factory=list)
    shown: dict[str, list[PageScene]] = field(default_factory=lambda: {name: [] for name in CLASSES})

    def summary(self, key: str = "planarity") -> dict[str, float]:
        """Return means and separation; DatasetError if a class has no scene that could be measured."""
        flatness = {name: [scene[key] for scene in self.scenes[name].values()] for name in CLASSES}
        for name, values in flatness.items():
            if not values:
                reason = f"; the first, {self.excluded[0].scene}: {self.excluded[0].reason}" if self.excluded else ""
                raise DatasetError(f"{self.method}: no {name} scene could be measured{reason}")
        found = {f"planarity_{name}": float(np.mean(values)) for name, values in flatness.items()}
        found |= {"auc": roc_auc(**flatness), "eer": equal_error_rate(**flatness)}
        if key == "planarity":
            for metric in ("accuracy_mean", "completeness_mean", "nc_mean"):
                found[metric] = float(np.mean([scene[metric] for scene in self.scenes["printed"].values()]))
        return found

    def record(self) -> dict[str, Any]:
        """Return the run as plain data."""
        excluded = [{"scene": bad.scene, "reason": bad.reason} for bad in self.excluded]
        return {
            "method": self.method,
            "seed": self.seed,
            "summary": self.summary(),
            "scenes": self.scenes,
            "excluded": excluded,
        }


def results_record(runs: Sequence[RunScenes], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what results.json holds; the row of the truth comes first."""
    rows = [{"method": TRUTH, "runs": 1, **_over([runs[0].summary("true_planarity")])}]
    for method in dict.fromkeys(run.method for run in runs):
        found = [run.summary() for run in runs if run.method == method]
        rows.append({"method": method, "runs": len(found), **_over(found)})
    return {
        "format": FORMAT,
        "version": __version__,
        "settings": dict(settings),
        "units": UNITS,
        "methods": rows,
        "runs": [run.record() for run in runs],
    }


def results_text(record: Mapping[str, Any]) -> str:
    """Return results.md: the table of methods, and what its columns mean."""
    rows = [["method", *COLUMNS, "n"]]
    for row in record["methods"]:
        cells = [spread_text(**row[key]) if key in row else "–" for key in COLUMNS.values()]
        rows.append([row["method"], *cells, str(row["runs"])])
    counts = {name: len(record["runs"][0]["scenes"][name]) for name in CLASSES}
    lead = f"{counts['printed']} printed and {counts['real']} real scenes."
    return f"# Spoof test\n\n{lead}\n\n{markdown_table(rows)}\n\n{record['units']}\n"


def _over(found: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Return mean and sample standard deviation (None for one run) of every number."""
    values = {key: np.array([one[key] for one in found]) for key in found[0]}
    return {
        key: {"mean": float(array.mean()), "std": float(array.std(ddof=1)) if len(array) > 1 else None}
        for key, array in values.items()
    }
