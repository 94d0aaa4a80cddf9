"""The tables and figures of the controlled experiment, from its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from controlled_analysis import BASES, MEASURES, METRICS, scenes_of

from megasynth_attr.core.pages.figures import CHANCE, COLOURS, figure_style, log_axis, new_figure, save_png
from megasynth_attr.core.pages.words import markdown_table, short, signed_text
from megasynth_train.subspace.components import PARTS

CONTRASTS = (
    ("on the others' basis, outputs", "on another condition's basis, outputs"),
    ("on the others' basis, outputs", "on a random basis, outputs"),
    ("the held-out adapter", "on the others' basis, outputs"),
)
MEASURE_NAMES = {"out": "column spaces (outputs)", "inner": "row spaces (inputs)", "coherence": "coherence of dW"}
GROUPS = ("six conditions", "four attributes")


def tables(results: Mapping[str, Any]) -> str:
    """Return all results as Markdown."""
    settings = results["settings"]
    first = (
        f"{results['adapters']} adapters on {len(results['datasets'])} datasets, seeds {results['seeds']}, "
        f"{settings['steps']} steps; {results['layers']} layers, all numbers are means over these."
    )
    parts = [first, "Constants by condition, mean ± spread over datasets:", _statistics(results["statistics"])]
    parts += ["Components of variance ± standard error (1: the whole of a unit vector):", _components(results)]
    parts += ["Label test, exchanging datasets:", _tests(results)]
    for name in MEASURES:
        parts += [f"{MEASURE_NAMES[name]}, overlap by condition:", _conditions(results[name]["conditions"])]
    dimension = settings["dimension"]
    parts += [f"Energy of a held-out adapter inside {dimension}-dimensional bases:", _energies(results["energies"])]
    differences = [f"{side} {mean:+.4f} ± {error:.4f}" for side, (mean, error) in results["energy differences"].items()]
    parts.append(f"Same attribute − other attributes, ± standard error over datasets: {', '.join(differences)}.")
    if results.get("functional"):
        parts += [
            "Change of the losses without tuning ± standard error over held-out adapters. New: scenes in which "
            "everything varies; own: those the held-out adapter was trained on.",
            _functional(results),
        ]
    return "\n\n".join(parts) + "\n"


def _statistics(found: Mapping[str, Any]) -> str:
    names = list(next(iter(found.values())))
    rows = [["condition", *names]]
    for condition, values in found.items():
        rows.append([condition, *(f"{values[name][0]:.3f} ± {values[name][1]:.3f}" for name in names)])
    return markdown_table(rows, aligned=False)


def _components(results: Mapping[str, Any]) -> str:
    rows = [["overlap of", "of", "chance", *PARTS, "own"]]
    for name in MEASURES:
        for group, found in results[name]["components"].items():
            numbers = [
                "–" if np.isnan(found["values"][part]) else f"{found['values'][part]:.4f} ± {found['errors'][part]:.4f}"
                for part in (*PARTS, "own")
            ]
            rows.append([MEASURE_NAMES[name], group, f"{results['chance'][name]:.4f}", *numbers])
    return markdown_table(rows, aligned=False)


def _tests(results: Mapping[str, Any]) -> str:
    rows = [["conditions", *(f"{name}: within, between, p" for name in MEASURE_NAMES.values())]]
    for group in results["out"]["tests"]:
        tests = [results[name]["tests"][group] for name in MEASURES]
        rows.append([group, *(f"{t['within']:.4f}, {t['between']:.4f}, {short(t['p_value'])}" for t in tests)])
    return markdown_table(rows, aligned=False)


def _conditions(found: Mapping[str, Any]) -> str:
    rows = [["", "same dataset", *found]]
    for name, values in found.items():
        rows.append([name, *(_four(values[other]) for other in ("same dataset", *found))])
    return markdown_table(rows, aligned=False)


def _four(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.4f}"


def _energies(found: Mapping[str, Any]) -> str:
    groups = list(next(iter(found.values())))
    rows = [["basis from", "side", *groups]]
    for basis in BASES:
        for side, text in (("out", "outputs"), ("inner", "inputs")):
            if values := found.get(f"{basis}, {side}"):
                rows.append([basis, text, *(_four(values[group]) for group in groups)])
    return markdown_table(rows, aligned=False)


def changes(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], np.ndarray]:
    """Return (scenes, variant) → change of METRICS against the base model, one row per held-out adapter."""
    found: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        difference = np.array(row["adapted"], dtype=float) - np.array(row["base"], dtype=float)
        found.setdefault((row["scenes"], row["variant"]), []).append(difference)
    return {key: np.array(values) for key, values in found.items()}


def _functional(results: Mapping[str, Any]) -> str:
    rows = [["scenes", "base model plus", *METRICS]]
    found = changes(results["functional"])
    for (scenes, variant), values in found.items():
        rows.append([scenes, variant, *_with_errors(values)])
    for one, other in CONTRASTS:
        if ("own", one) in found:
            rows.append(["own", f"{one} − {other}", *_with_errors(found["own", one] - found["own", other])])
    return markdown_table(rows, aligned=False)


def _with_errors(values: np.ndarray) -> list[str]:
    """Return mean ± standard error of each column."""
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.full(values.shape[1], np.nan)
    return [f"{signed_text(mean)} ± {error:.2g}" for mean, error in zip(values.mean(axis=0), errors, strict=True)]


def draw_scenes(data: Path, path: Path) -> None:
    """Draw the first picture of four scenes of two datasets of every condition that ``data`` holds."""
    conditions = list(dict.fromkeys(folder.name.rpartition("_")[0] for folder in sorted(data.glob("*_00"))))
    with figure_style():
        figure = new_figure(7.2, 0.85 * len(conditions), layout="constrained")
        grid = figure.subplots(len(conditions), 8, squeeze=False)
        for row, condition in zip(grid, conditions, strict=True):
            scenes = [scene for index in (0, 1) for scene in scenes_of(data / f"{condition}_{index:02d}")[:4]]
            for axes, scene in zip(row, scenes, strict=False):
                axes.imshow(scene.read_views([0])[0].rgb)
            for axes in row:
                axes.set(xticks=[], yticks=[])
                axes.set_frame_on(False)
            row[0].set_ylabel(condition)
        save_png(figure, path)


def draw(results: Mapping[str, Any], out: Path, stem: str) -> None:
    """Draw components of variance, held-out energies, p values and functional controls."""
    with figure_style():
        save_png(_draw_components(results), out / f"{stem}_components.png")
        save_png(_draw_tests(results), out / f"{stem}_tests.png")
        save_png(_draw_energies(results), out / f"{stem}_energies.png")
        if results.get("functional"):
            save_png(_draw_functional(results), out / f"{stem}_functional.png")


def _draw_components(results: Mapping[str, Any]) -> Any:
    figure = new_figure(7.2, 2.9, layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), MEASURES, strict=True):
        chance = results["chance"][name]
        for index, group in enumerate(GROUPS):
            found = results[name]["components"].get(group)
            if found is None:
                continue
            values = np.array([found["values"][part] for part in PARTS])
            values[0] -= chance
            errors = [found["errors"][part] for part in PARTS]
            places = np.arange(len(PARTS)) + (index - 0.5) * 0.36
            axes.bar(places, values, 0.34, yerr=errors, color=COLOURS[index], label=group, error_kw={"lw": 1})
        axes.axhline(0, color=CHANCE, lw=0.8)
        axes.set_xticks(range(len(PARTS)), PARTS, fontsize=7)
        axes.set_title(MEASURE_NAMES[name])
    figure.axes[0].set_ylabel("share of a unit vector\n(common: above chance)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=7)
    return figure


def _draw_tests(results: Mapping[str, Any]) -> Any:
    groups = list(results["out"]["tests"])[::-1]
    figure = new_figure(6.2, 0.8 + 0.24 * len(groups), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(MEASURES):
        values = [results[name]["tests"][group]["p_value"] for group in groups]
        places = np.arange(len(groups)) + (index - 1) * 0.16
        axes.plot(values, places, "osD"[index], ms=4, color=COLOURS[index], label=MEASURE_NAMES[name])
    axes.axvline(0.05, color=CHANCE, ls="--", lw=0.8)
    axes.set_yticks(range(len(groups)), groups)
    axes.set(xscale="log", xlabel="p of the label test (dashed: 0.05)")
    log_axis(axes, "x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=7)
    return figure


def _draw_energies(results: Mapping[str, Any]) -> Any:
    found = results["energies"]
    groups = [name for name in next(iter(found.values())) if name != "all"]
    figure = new_figure(7.2, 2.9, layout="constrained")
    for axes, side, title in zip(figure.subplots(1, 2), ("out", "inner"), ("outputs", "inputs"), strict=True):
        for index, basis in enumerate(BASES):
            if values := found.get(f"{basis}, {side}"):
                colour, marker = (CHANCE, "_") if basis == "random" else (COLOURS[index], "osD^"[index])
                numbers = [np.nan if values[group] is None else values[group] for group in groups]
                axes.plot(range(len(groups)), numbers, marker, color=colour, label=basis, ms=5)
        axes.set_xticks(range(len(groups)), groups, rotation=30)
        axes.set(title=title, ylim=(0, None))
    figure.axes[0].set_ylabel("energy of a held-out adapter\ninside the basis")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=7)
    return figure


def _draw_functional(results: Mapping[str, Any]) -> Any:
    found = changes(results["functional"])
    scenes = list(dict.fromkeys(key[0] for key in found))
    figure = new_figure(7.2, 2.0 * len(scenes) + 0.5, layout="constrained")
    grid = figure.subplots(len(scenes), len(METRICS), squeeze=False)
    for row, kind in zip(grid, scenes, strict=True):
        names = [variant for scene, variant in found if scene == kind][::-1]
        for column, axes in enumerate(row):
            for place, name in enumerate(names):
                values = found[kind, name][:, column]
                axes.plot(values, np.full(len(values), place), ".", color=COLOURS[4], ms=4)
                axes.plot(values.mean(), place, "D", color=COLOURS[0], ms=5)
            axes.axvline(0, color=CHANCE, lw=0.8, ls="--")
            axes.set_yticks(range(len(names)), names if column == 0 else [""] * len(names))
            metric = METRICS[column].removesuffix("_regression")
            axes.set_title(f"{metric}, {'new' if kind == 'new' else 'own'} scenes")
    figure.supxlabel("change of the loss against the base model, one dot per held-out adapter", fontsize=8.5)
    return figure
