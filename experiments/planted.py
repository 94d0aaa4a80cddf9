"""Do the tools find a subspace if there is one, and none if there is not? Synthetic clusters with known answers.

    python experiments/planted.py out=runs/planted [seeds=20] [unrelated=400]

Every cluster has four attributes of six rank-4 adapters in four layers of 128 x 96 weights. The planted truth, if any,
is a pair of 2-dimensional subspaces per attribute and layer, of which every adapter has a slightly wrong copy;
``share`` is the fraction of its energy in that copy. ``unrelated`` clusters of one layer, without any, show how often
each test sees something. Writes planted.json, planted.md and planted.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.pages.words import markdown_table
from megasynth_attr.core.temporary import replace_atomically
from megasynth_train.subspace.angles import principal_angles
from megasynth_train.subspace.basis import haar_frame
from megasynth_train.subspace.core import Core, Update, core_coordinates
from megasynth_train.subspace.extract import Options, extract, solve
from megasynth_train.subspace.settings import EXTRACTORS
from megasynth_train.subspace.sharing import Overlaps, label_test, overlaps
from megasynth_train.subspace.spectrum import (
    FrameBank,
    null_spectrum,
    significant,
    significant_normalised,
    significant_reweighted,
    spectrum,
)

OUTPUTS, INPUTS, RANK, DIMENSION = 128, 96, 4, 2
ATTRIBUTES, ADAPTERS, LAYERS = 4, 6, 4
WOBBLE = 0.3  # error of every direction of an adapter's copy relative to its length: 17 degrees
DRAWS, LEVEL = 20, 0.05  # of nulls; of every test
ALARMS = f"""\
Unrelated adapters: how often a test sees something in one layer (label tests: of all attributes). Nominally
{LEVEL}; the reweighted mean's weights are fitted to the updates, and its null does not fit them again."""
SIDES = {"out": "outputs", "inner": "inputs"}
HELP = Help(
    "python experiments/planted.py out=FOLDER [seeds=20] [unrelated=400]",
    "Tests the mining tools on clusters with known answers.",
)


@dataclass(frozen=True)
class Settings:
    """What to run."""

    out: str = setting("runs/planted", "output folder")
    seeds: int = setting(20, "clusters per condition", minimum=2)
    unrelated: int = setting(400, "clusters of unrelated adapters for the rates of false alarms", minimum=1)


@dataclass(frozen=True)
class Condition:
    """One kind of cluster: what its adapters share, and the fraction of their energy (``share``) in it."""

    name: str
    share: float = 0.0
    coefficients: str = "same"  # of the shared part: the same in all adapters, or free
    outliers: int = 0  # adapters per attribute without the shared part
    common: bool = False  # one subspace for all attributes
    same_start: bool = False  # all adapters of all attributes have the same row space (lora_A), and nothing else


CONDITIONS = (
    Condition("nothing shared"),
    Condition("same start, nothing shared", same_start=True),
    *(Condition(f"same sign, {share:.0%}", share) for share in (0.02, 0.05, 0.1, 0.2, 0.5)),
    *(Condition(f"free coefficients, {share:.0%}", share, "free") for share in (0.1, 0.2, 0.5)),
    Condition("same sign, 50%, 2 of 6 outliers", 0.5, outliers=2),
    Condition("one subspace for all attributes, 50%", 0.5, common=True),
)


def layer_cluster(
    condition: Condition, rng: np.random.Generator
) -> tuple[list[Core], list[tuple[np.ndarray, np.ndarray]]]:
    """Return the cores of the four attributes in one layer and the true bases, one pair per attribute."""
    start = rng.standard_normal((INPUTS, RANK))
    everyone = haar_frame(OUTPUTS, DIMENSION, rng), haar_frame(INPUTS, DIMENSION, rng)
    cores, truths = [], []
    for _ in range(ATTRIBUTES):
        own = haar_frame(OUTPUTS, DIMENSION, rng), haar_frame(INPUTS, DIMENSION, rng)
        left, right = everyone if condition.common else own
        fixed = np.diag([1.0, 0.7])
        updates = []
        for index in range(ADAPTERS):
            columns = RANK - DIMENSION * bool(condition.share)
            row_space = start if condition.same_start else rng.standard_normal((INPUTS, columns))
            noise = _unit(Update(rng.standard_normal((OUTPUTS, row_space.shape[1])), row_space))
            share = 0.0 if index >= ADAPTERS - condition.outliers else condition.share
            middle = fixed if condition.coefficients == "same" else rng.standard_normal((DIMENSION, DIMENSION))
            signal = _unit(Update(_wobbled(left, rng) @ middle, _wobbled(right, rng)))
            parts = [(signal, share), (noise, 1 - share)] if share else [(noise, 1.0)]
            scaled = np.hstack([np.sqrt(part) * update.left for update, part in parts])
            updates.append(Update(scaled, np.hstack([update.right for update, _ in parts])))
        cores.append(core_coordinates(updates))
        truths.append((left, right))
    return cores, truths


def _wobbled(basis: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    error = rng.standard_normal(basis.shape) / np.sqrt(len(basis))
    frame, triangle = np.linalg.qr(basis + WOBBLE * error)
    return np.asarray(frame * np.sign(np.diag(triangle)))  # QR alone would flip signs at random


def _unit(update: Update) -> Update:
    return Update(update.left / np.linalg.norm(update.left @ update.right.T), update.right)


def measure(condition: Condition, seed: int) -> dict[str, Any]:
    """Return the tools' results on one cluster, averaged over layers and attributes."""
    rng = np.random.default_rng([seed, *condition.name.encode()])
    bank = FrameBank(DRAWS, seed=seed)
    found: dict[str, list[float]] = {}
    matrices = []

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(float(value))

    for layer in range(LAYERS):
        cores, truths = layer_cluster(condition, rng)
        for attribute, (core, (left, right)) in enumerate(zip(cores, truths, strict=True)):
            null = null_spectrum(core, bank.at(str(layer), str(attribute)), 1 - LEVEL)
            add("significant", significant(spectrum(core), null.upper))
            for name in EXTRACTORS if condition.share else ():
                mined = extract(core, DIMENSION, name, Options())
                worst = max(principal_angles(mined.left, left)[-1], principal_angles(mined.right, right)[-1])
                add(f"angle_{name}", np.degrees(worst))
                if name == "irls" and condition.outliers:
                    add("outlier_weight", mined.weights[-condition.outliers :].mean() * ADAPTERS)
        _add_overlaps(cores, add)
        matrices.append(_all_overlaps(cores))
    for side in SIDES:
        add(f"p_{side}", _p_value(matrices, side, rng))
    return {name: float(np.mean(values)) for name, values in found.items()}


def false_alarms(clusters: int) -> dict[str, dict[str, Any]]:
    """Return how often each test sees something in unrelated adapters: tries, share and its 95 % interval.

    One bank of rotations serves all clusters, as it serves all layers of one run of ``mine``.
    """
    rng, bank = np.random.default_rng(0), FrameBank(DRAWS, seed=0)
    fired: dict[str, list[bool]] = {}
    for index in tqdm(range(clusters), desc="unrelated", unit="cluster"):
        cores, _ = layer_cluster(CONDITIONS[0], rng)
        for attribute, core in enumerate(cores):
            turned, weights = bank.at(str(index), str(attribute)), solve(core, DIMENSION, "irls", Options()).weights
            counts = {
                "significant: mean": significant(spectrum(core), null_spectrum(core, turned, 1 - LEVEL).upper),
                "significant: reweighted": significant_reweighted(core, turned, 1 - LEVEL, weights),
                "significant: normalised": significant_normalised(core, turned, 1 - LEVEL),
            }
            for name, count in counts.items():
                fired.setdefault(name, []).append(count > 0)
        matrices = [_all_overlaps(cores)]
        for side, name in SIDES.items():
            fired.setdefault(f"label test, {name}", []).append(_p_value(matrices, side, rng) <= LEVEL)
    rates = {}
    for name, each in fired.items():
        low, high = binomtest(sum(each), len(each)).proportion_ci()
        rates[name] = {"tries": len(each), "share": sum(each) / len(each), "low": low, "high": high}
    return rates


def _all_overlaps(cores: list[Core]) -> Overlaps:
    together = [update for core in cores for update in _updates(core)]
    return overlaps(core_coordinates(together), OUTPUTS, INPUTS)


def _p_value(layers: list[Overlaps], side: str, rng: np.random.Generator) -> float:
    """Return the label test's p-value of the mean overlaps over layers."""
    labels = [str(a) for a in range(ATTRIBUTES) for _ in range(ADAPTERS)]
    matrix = np.mean([getattr(layer, side) for layer in layers], axis=0)
    return label_test(matrix, labels, 400, rng).p_value


def _updates(core: Core) -> list[Update]:
    pairs = zip(core.factors_left, core.factors_right, strict=True)
    return [Update(core.left @ left, core.right @ right) for left, right in pairs]


def _add_overlaps(cores: list[Core], add: Callable[[str, float], None]) -> None:
    """Add mean cos² of bases from halves of one attribute, and of two, relative to chance (d / m)."""
    halves = []
    for updates in map(_updates, cores):
        both = map(core_coordinates, (updates[::2], updates[1::2]))
        halves.append([extract(half, DIMENSION, "irls", Options()).left for half in both])
    chance = DIMENSION / OUTPUTS
    for first, second in halves:
        add("same_attribute", np.mean(np.cos(principal_angles(first, second)) ** 2) / chance)
    for one, other in combinations(halves, 2):
        add("two_attributes", np.mean(np.cos(principal_angles(one[0], other[0])) ** 2) / chance)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation over seeds of every number, and how often the label test rejects."""
    summary: dict[str, Any] = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        summary[name] = {"mean": float(values.mean()), "std": float(values.std(ddof=1))}
        if name.startswith("p_"):
            summary[name]["fired"] = float(np.mean(values <= LEVEL))
    return summary


def table(results: Mapping[str, Mapping[str, Any]], seeds: int, alarms: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the Markdown tables with their explanations."""
    head = ["cluster", "dimensions found (truth 2)", *(f"{name}°" for name in EXTRACTORS)]
    head += ["overlap, one attribute", "overlap, two attributes", "label test, outputs", "inputs"]

    def cell(row: Mapping[str, Any], key: str, digits: int = 1) -> str:
        return f"{row[key]['mean']:.{digits}f} ± {row[key]['std']:.{digits}f}" if key in row else ""

    keys = [*(f"angle_{name}" for name in EXTRACTORS), "same_attribute", "two_attributes"]
    rows = [head]
    for name, row in results.items():
        fired = (f"{row[f'p_{side}']['fired']:.2f}" for side in SIDES)
        rows.append([name, cell(row, "significant", 2), *(cell(row, key) for key in keys), *fired])
    lines = [
        f"{seeds} clusters per row; mean ± standard deviation over them. Angles: largest principal angle, over both",
        "sides, between the mined basis and the truth, in degrees (random: about 89). Overlap: mean cos² of",
        "2-dimensional bases, each from half of an attribute's adapters, relative to chance. Label test: share of",
        f"clusters with p ≤ {LEVEL} ({LEVEL} by chance).\n\n{markdown_table(rows, aligned=False)}\n",
    ]
    outliers = [(name, row["outlier_weight"]["mean"]) for name, row in results.items() if "outlier_weight" in row]
    lines += [f"{name}: irls gives an outlier {weight:.2f} times the equal weight." for name, weight in outliers]
    rates = [["false alarms", "tries", "share", "95 % interval"]]
    for name, row in alarms.items():
        rates.append([name, str(row["tries"]), f"{row['share']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}"])
    lines += [f"\n{ALARMS}\n"]
    return "\n".join([*lines, markdown_table(rates, aligned=False)]) + "\n"


def draw(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw recovery and overlap by condition."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.4, 1])

    def points(axes: Any, names: list[str], offset: float, key: str, label: str, marker: str) -> None:
        rows = [results[name][key] for name in names]
        spread = [row["std"] for row in rows]
        places = np.arange(len(names))
        axes.errorbar(places + offset, [row["mean"] for row in rows], spread, fmt=marker, label=label, ms=5)
        axes.set_xticks(places, names, rotation=40, ha="right", fontsize=8)

    shared = [c.name for c in CONDITIONS if c.share]
    for index, (name, marker) in enumerate(zip(EXTRACTORS, "osD^v", strict=False)):
        points(left, shared, (index - 2) * 0.12, f"angle_{name}", name, marker)
    left.set(ylabel="largest angle to the truth (°)", ylim=(0, 92), title="Is a planted subspace found?")
    everyone = [c.name for c in CONDITIONS]
    points(right, everyone, 0, "same_attribute", "halves of one attribute", "o")
    points(right, everyone, 0, "two_attributes", "two attributes", "s")
    right.axhline(1, color="0.5", ls="--", lw=1, label="chance")
    right.set(yscale="log", ylabel="mean cos² relative to chance, outputs", title="And none if none was planted?")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def main(words: list[str]) -> None:
    """Run every condition with every seed and write the results."""
    settings = parse(Settings, words, HELP)
    out = Path(settings.out)
    alarms = false_alarms(settings.unrelated)
    results = {}
    with tqdm(total=len(CONDITIONS) * settings.seeds, desc="planted", unit="cluster") as bar:
        for condition in CONDITIONS:
            rows = []
            for seed in range(settings.seeds):
                rows.append(measure(condition, seed))
                bar.update()
            results[condition.name] = summarise(rows)
    replace_atomically(
        out / "planted.json", (json.dumps({**results, "false alarms": alarms}, indent=1) + "\n").encode()
    )
    text = table(results, settings.seeds, alarms)
    replace_atomically(out / "planted.md", text.encode())
    draw(results, out / "planted.png")
    print(text)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
