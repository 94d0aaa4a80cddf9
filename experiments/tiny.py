"""The paper's three questions, put to real adapters of a tiny model, with controls.

    python experiments/tiny.py out=runs/attributes

(a) Do adapters of one attribute share a subspace beyond chance? (b) Are those of different attributes further apart
than halves of one attribute, and than chance? (c) Does tuning M in the mined basis beat a random basis, and heads only,
at equal parameters, on held-out scenes of another kind? Renders what is missing, trains, mines, compares, and writes
results.json and results.md. Running it again continues. (a) and (b) use two clusters (seeds), (c) three seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.pages.words import markdown_table
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.pipeline import __main__ as pipeline
from megasynth_train import cluster, mine
from megasynth_train.compare import __main__ as compare
from megasynth_train.subspace.analysis import Analysis, read_analysis
from megasynth_train.subspace.core import core_coordinates
from megasynth_train.subspace.sharing import label_test, overlaps
from megasynth_train.subspace.updates import open_cluster

ATTRIBUTES = ("texture", "geometry", "camera", "lighting")
MEASURES = {"out": "column spaces", "inner": "row spaces", "coherence": "coherence of dW"}
WIDE = "heads-wide"  # heads only, with about as many parameters as the subspace methods
METHODS = ("base", "heads", WIDE, "random", "subspace", "subspace-block", "lora-4")
SMALL = ["render.width_px=126", "render.height_px=126", "texture.bank_size_px=256", "stages=generate"]
TRAINING = [
    "model=vggt-tiny", "data.width_px=98", "data.views=[2,4]", "data.images_per_step=8", "data.validation_share=0",
    "data.workers=0", "loss.quantile=1", "optim.beta2=0.95", "run.checkpoint_every=0",
]  # fmt: skip
HELP = Help(
    "python experiments/tiny.py out=FOLDER [key=value ...]", "Tests attribute subspaces on a tiny model, with controls."
)


@dataclass(frozen=True)
class Settings:
    """What to run."""

    out: str = setting("runs/attributes", "output folder; running again continues")
    checkpoint: str = setting("shipped:vggt-tiny", "the base model")
    clusters: tuple[int, ...] = setting((0, 1), "seeds of the clusters", minimum=0)
    seeds: tuple[int, ...] = setting((0, 1, 2), "seeds of the downstream runs", minimum=0)
    steps: int = setting(150, "steps per adapter", minimum=1)
    downstream_steps: int = setting(150, "steps per downstream run", minimum=1)
    lr: float = setting(1e-3, "learning rate of the adapters", minimum=0)
    downstream_lr: float = setting(1e-3, "learning rate downstream", minimum=0)
    permutations: int = setting(5000, "relabellings of the label test", minimum=100)


def render(out: Path) -> None:
    """Render four datasets of each attribute, and two datasets of furnished rooms, which the base has not seen."""
    words = ["preset=demo", "seed=7", "dataset_count=4", "scene_count=6", "frames=8", "downstream="]
    pipeline.main([*words, *SMALL, f"out={out / 'data'}", f"cache={out / 'cache'}"])
    words = ["preset=megasynth", "seed=303", "dataset_count=2", "scene_count=8", "frames=6", "quality=draft"]
    pipeline.main([*words, *SMALL, f"out={out / 'rooms'}", f"cache={out / 'cache'}"])


def train_and_mine(settings: Settings, out: Path, seed: int) -> tuple[Path, Path]:
    """Train one adapter per dataset and mine them; return both folders."""
    adapters, subspaces = out / f"adapters_{seed}", out / f"subspaces_{seed}"
    words = [f"experiment={out / 'data'}", f"out={adapters}", f"seed={seed}", f"run.seed={seed}", "mode=lora", "rank=4"]
    tuning = [f"checkpoint={settings.checkpoint}", f"steps={settings.steps}", f"lr={settings.lr}"]
    cluster.main([*words, *tuning, *TRAINING])
    words = [f"cluster={adapters}", f"out={subspaces}", "mining.dimension=8", "mining.splits=6"]
    mine.main([*words, f"mining.attributes=[{','.join(ATTRIBUTES)}]"])
    return adapters, subspaces


def sharing(adapters: Path, permutations: int, seed: int) -> dict[str, Any]:
    """Return the label test of every measure, averaged over layers, over all attributes and for each pair of them."""
    opened = open_cluster(adapters)
    labels = [row.attribute for row in opened.adapters]
    layers = []
    for module in opened.modules:
        updates = opened.updates(module)
        first = next(iter(updates.values()))
        core = core_coordinates([updates[row.name] for row in opened.adapters])
        layers.append(overlaps(core, len(first.left), len(first.right)))
    rng = np.random.default_rng([seed, 1])
    chance = {
        "out": np.mean([layer.out_chance[0, 1] for layer in layers]),
        "inner": np.mean([layer.inner_chance[0, 1] for layer in layers]),
        "coherence": 0.0,
    }
    result: dict[str, Any] = {}
    for name in MEASURES:
        matrix = np.mean([getattr(layer, name) for layer in layers], axis=0)
        pairs = {}
        for one, other in combinations(ATTRIBUTES, 2):
            chosen = [i for i, label in enumerate(labels) if label in (one, other)]
            test = label_test(matrix[np.ix_(chosen, chosen)], [labels[i] for i in chosen], permutations, rng)
            pairs[f"{one}, {other}"] = asdict(test)
        whole = asdict(label_test(matrix, labels, permutations, rng))
        result[name] = {"all": whole, "chance": float(chance[name]), "pairs": pairs, "matrix": matrix.tolist()}
        result[name]["labels"] = labels
    return result


def halves(analysis: Analysis) -> dict[str, Any]:
    """Return mean cos² of bases from halves, relative to chance, by attribute and by pair, both sides."""
    found: dict[str, dict[str, list[float]]] = {}
    sizes = {row.layer.module: {"out": row.outputs, "in": row.inputs} for row in analysis.layers}
    for row in analysis.splits:
        key = row.first if row.first == row.second else f"{row.first}, {row.second}"
        for side, angles in (("out", row.angles_out_deg), ("in", row.angles_in_deg)):
            if angles:
                chance = len(angles) / sizes[row.layer.module][side]
                ratio = float(np.mean(np.cos(np.radians(angles)) ** 2)) / chance
                found.setdefault(key, {}).setdefault(side, []).append(ratio)
    return {key: {side: float(np.mean(v)) for side, v in sides.items()} for key, sides in found.items()}


def downstream(settings: Settings, out: Path, subspaces: Path) -> str:
    """Train and evaluate every method on the rooms; return the table of comparison.md."""
    target = out / "comparison"
    data = [f"data={out / 'rooms' / 'megasynth_00'}", f"test.data={out / 'rooms' / 'megasynth_01'}", f"out={target}"]
    methods = [f"basis={subspaces}", f"methods=[{','.join(METHODS)}]", f"seeds={list(settings.seeds)}"]
    heads = ["adapter.head_rank=4", f"define.{WIDE}.like=heads", f"define.{WIDE}.adapter.head_rank=6"]
    tuning = [f"checkpoint={settings.checkpoint}", f"steps={settings.downstream_steps}", f"lr={settings.downstream_lr}"]
    compare.main(
        [*data, *methods, *heads, *tuning, *TRAINING, "test.views=4", "test.max_points=3000", "test.width_px=98"]
    )
    return (target / "comparison.md").read_text(encoding="utf-8")


def main(words: list[str]) -> None:
    """Run everything that is not finished yet and write the results."""
    settings = parse(Settings, words, HELP)
    out = Path(settings.out).resolve()
    render(out)
    results: dict[str, Any] = {"settings": asdict(settings), "clusters": {}}
    folders = [train_and_mine(settings, out, seed) for seed in settings.clusters]
    for seed, (adapters, subspaces) in zip(settings.clusters, folders, strict=True):
        analysis = read_analysis(subspaces)
        results["clusters"][str(seed)] = {
            "sharing": sharing(adapters, settings.permutations, seed),
            "halves": halves(analysis),
            "significant": float(np.mean([row.significant for row in analysis.layers])),
        }
        write(out, results)
    results["downstream"] = downstream(settings, out, folders[0][1])
    write(out, results)
    print((out / "results.md").read_text(encoding="utf-8"))


def write(out: Path, results: Mapping[str, Any]) -> None:
    """Write the results so far."""
    replace_atomically(out / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    clusters = results["clusters"]
    sharing_rows = [["cluster", "overlap of", "same attribute", "different attributes", "chance", "p (relabelling)"]]
    for seed, found in clusters.items():
        for name, text in MEASURES.items():
            row = found["sharing"][name]
            numbers = (row["all"]["within"], row["all"]["between"], row["chance"], row["all"]["p_value"])
            sharing_rows.append([seed, text, *(f"{number:.4f}" for number in numbers)])
    sides = [(seed, side) for seed in clusters for side in ("out", "in")]
    halves_rows = [["bases from halves of", *(f"cluster {seed}, {side}" for seed, side in sides)]]
    for key in next(iter(clusters.values()))["halves"]:
        halves_rows.append([key, *(f"{clusters[seed]['halves'][key][side]:.2f}" for seed, side in sides)])
    shares = ", ".join(f"{found['significant']:.2f} (cluster {seed})" for seed, found in clusters.items())
    parts = [markdown_table(rows, aligned=False) for rows in (sharing_rows, halves_rows)]
    parts.append(f"Dimensions above the null spectrum, mean over layers and attributes: {shares}.")
    parts.append(results.get("downstream", ""))
    replace_atomically(out / "results.md", ("\n\n".join(parts) + "\n").encode())


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
