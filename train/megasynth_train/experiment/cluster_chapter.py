"""What the summary page says about a cluster: how its adapters' objective fell, and how far they moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.pages.chapters import Chapter, Picture, Table, write_chapter
from megasynth_attr.core.pages.figures import attribute_colours, figure_style, save, sheet
from megasynth_attr.core.pages.words import short
from megasynth_train.training.cluster_manifest import drift_summary, read_manifest
from megasynth_train.training.metrics import read_metrics
from megasynth_train.training.run_folder import read_done

CURVES = "objectives"
PAPER_STEPS = 24_000


@dataclass(frozen=True)
class Adapter:
    """A trained adapter: its objective by step, and the drift of its ``lora_A`` (None: it has none)."""

    attribute: str
    scenes: int
    steps: np.ndarray
    objective: np.ndarray  # mean over the steps since the previous value
    change: float | None
    angle_deg: float | None


def write_cluster_chapter(folder: Path) -> Chapter:
    """Write ``chapter.json`` and its picture into the cluster's folder; return the chapter.

    Unfinished adapters are counted but not shown. DatasetError if a file of a finished one is damaged.
    """
    manifest = read_manifest(folder)
    adapters = [_read(folder / name, entry) for name, entry in manifest["adapters"].items() if read_done(folder / name)]
    attributes = tuple(dict.fromkeys(str(entry["attribute"]) for entry in manifest["adapters"].values()))
    pictures: tuple[Picture, ...] = ()
    if drawn := [adapter for adapter in adapters if len(adapter.steps) > 1]:
        with storage_errors("the cluster's picture", folder):
            _draw(folder, drawn, attributes)
        pictures = (Picture(f"{CURVES}.png", _caption(manifest), _alt(drawn, attributes)),)
    chapter = Chapter(
        title="Adapters",
        lead=_lead(manifest, adapters, attributes),
        facts=_facts(manifest, adapters),
        pictures=pictures,
        tables=(_table(adapters, attributes),),
        caveat=_caveat(manifest, adapters),
    )
    write_chapter(folder, chapter)
    return chapter


def _read(run: Path, entry: Mapping[str, Any]) -> Adapter:
    lines = [line for line in read_metrics(run, "train") if line.get("objective") is not None]
    moved = drift_summary(run)
    return Adapter(
        str(entry["attribute"]),
        int(entry["scenes"]),
        np.array([line["step"] for line in lines]),
        np.array([line["objective"] for line in lines]),
        moved.get("median_relative_change"),
        moved.get("median_largest_angle_deg"),
    )


def _draw(folder: Path, adapters: Sequence[Adapter], attributes: Sequence[str]) -> None:
    """Draw one line per adapter, in the colour of its attribute."""
    colours = attribute_colours(attributes)
    with figure_style():
        page = sheet(1, 1, 2.4, top=0.45)
        axes = page.axes[0, 0]
        labelled: set[str] = set()
        for adapter in adapters:
            label = adapter.attribute if adapter.attribute not in labelled else None
            labelled.add(adapter.attribute)
            axes.plot(adapter.steps, adapter.objective, color=colours[adapter.attribute], lw=1.2, label=label)
        axes.set_xlabel("training step")
        axes.set_ylabel("objective")
        axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2, handlelength=1.2)
        save(page, folder, CURVES)


def _lead(manifest: Mapping[str, Any], adapters: Sequence[Adapter], attributes: Sequence[str]) -> str:
    settings, total = manifest["settings"], len(manifest["adapters"])
    seeds = len({entry["seed"] for entry in manifest["adapters"].values()})
    starts = "from its own random start" if seeds == total else f"from {seeds} different random starts"
    unfinished = f"; {total - len(adapters)} more are not finished" if len(adapters) < total else ""
    trained = f"{len(adapters)} adapter{'s' * (len(adapters) != 1)}"
    text = (
        f"An adapter is a small update of a trained network. {trained} of {settings['model']['size']} "
        f"({settings['adapter']['mode']}, rank {settings['adapter']['rank']}) were trained for "
        f"{settings['optim']['steps']:,} steps, each on one dataset and {starts}{unfinished}."
    )
    falls = [adapter for adapter in adapters if len(adapter.steps) > 1]
    if falls:
        fell = sum(adapter.objective[-1] < adapter.objective[0] for adapter in falls)
        text += f" The objective ended below where it began for {fell} of {len(falls)}."
    return text


def _facts(manifest: Mapping[str, Any], adapters: Sequence[Adapter]) -> tuple[tuple[str, str], ...]:
    settings = manifest["settings"]
    return (
        ("Adapters", f"{len(adapters)} of {len(manifest['adapters'])}"),
        ("Base model", str(settings["model"]["checkpoint"] or "random weights")),
        ("Method", f"{settings['adapter']['mode']}, rank {settings['adapter']['rank']}"),
        ("Steps each", f"{settings['optim']['steps']:,}"),
    )


def _table(adapters: Sequence[Adapter], attributes: Sequence[str]) -> Table:
    rows = []
    for attribute in attributes:
        own = [adapter for adapter in adapters if adapter.attribute == attribute]
        curves = [adapter.objective for adapter in own if len(adapter.steps)]
        rows.append(
            (
                attribute,
                str(len(own)),
                short(_mean([float(curve[0]) for curve in curves])),
                short(_mean([float(curve[-1]) for curve in curves])),
                short(_mean([adapter.change for adapter in own])),
                short(_mean([adapter.angle_deg for adapter in own])) + "°",
            )
        )
    return Table(
        "Means over the adapters of each attribute. Change of A: how far lora_A, which starts at random, moved, "
        "relative to its norm at the start; angle: the largest principal angle between its row spaces now and at the "
        "start (both: median over the layers). Where lora_A hardly moves, adapters with the same start would resemble "
        "each other; that is why each has its own.",
        ("Attribute", "Adapters", "Objective, first", "Objective, last", "Change of A", "Angle"),
        tuple(rows),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _caption(manifest: Mapping[str, Any]) -> str:
    every = manifest["settings"]["run"]["log_every"]
    return (
        f"The training objective of every adapter, averaged over every {every} steps. It includes a reward for "
        "confidence, so it may be negative; lower is better."
    )


def _alt(adapters: Sequence[Adapter], attributes: Sequence[str]) -> str:
    parts = []
    for attribute in attributes:
        own = [adapter.objective for adapter in adapters if adapter.attribute == attribute]
        if own:
            first, last = (_mean([float(curve[i]) for curve in own]) for i in (0, -1))
            parts.append(f"{attribute} from {short(first)} to {short(last)}")
    return f"Curves of the objective over the training steps; means: {', '.join(parts)}."


def _caveat(manifest: Mapping[str, Any], adapters: Sequence[Adapter]) -> str:
    settings = manifest["settings"]
    steps, scenes = settings["optim"]["steps"], sorted({adapter.scenes for adapter in adapters})
    text = (
        "The objective is measured on an adapter's own training scenes: it shows that the adapter learned, not how "
        "well it generalises."
    )
    if steps < PAPER_STEPS or settings["model"]["size"] != "vggt-1b":
        counts = " to ".join(str(count) for count in dict.fromkeys((scenes[0], scenes[-1]))) if scenes else "0"
        text += (
            f" The paper trains VGGT-1B for {PAPER_STEPS:,} steps on 200 scenes per dataset; here it is "
            f"{settings['model']['size']}, {steps:,} steps, {counts} scenes."
        )
    return text
