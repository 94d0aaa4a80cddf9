"""results.json and the tables of results.md, from the numbers of the scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from megasynth_attr import __version__
from megasynth_attr.core.pages.words import count_text, markdown_table, spread_text
from megasynth_train.data.scene import BadScene
from megasynth_train.evaluate.depth import ALIGNMENTS
from megasynth_train.evaluate.protocols import COLUMNS, NONE, PROTOCOLS

FORMAT = "megasynth-attr evaluation 1"
GROUPS = ("points", "depth", "cameras", "alignment", "sizes")

TEXTS = yaml.safe_load((Path(__file__).parent / "results.yaml").read_text(encoding="utf-8"))


def results_record(
    scenes: Sequence[Mapping[str, Any]],
    excluded: Sequence[BadScene],
    settings: Mapping[str, Any],
    model: Mapping[str, Any],
    data: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what results.json holds; with a protocol also its columns, for each scene and on average."""
    average = {group: _averaged([scene[group] for scene in scenes]) for group in GROUPS}
    protocol = PROTOCOLS.get(settings.get("protocol", NONE))
    of_protocol: dict[str, Any] = {}
    if protocol is not None:
        means = {key: average["points"][key]["mean"] for key, *_ in COLUMNS.values()}
        of_protocol = {
            "name": protocol.name,
            "units": protocol.words,
            "scenes": {scene["name"]: protocol.columns(scene["points"]) for scene in scenes},
            "average": protocol.columns(means),
        }
    return {
        "format": FORMAT,
        "version": __version__,
        "settings": dict(settings),
        "model": dict(model),
        "data": dict(data),
        "units": TEXTS["units"],
        "methods": TEXTS["methods"],
        "scenes": [dict(scene) for scene in scenes],
        "scenes_evaluated": len(scenes),
        "excluded": [{"scene": bad.scene, "reason": bad.reason} for bad in excluded],
        "scenes_excluded": len(excluded),
        "average": average,
        **({"protocol": of_protocol} if of_protocol else {}),
    }


def _averaged(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return {mean, std, scenes} of every number of the records, nested as they are; None if no record has it."""
    found: dict[str, Any] = {}
    for key in records[0]:
        values = [record[key] for record in records]
        if isinstance(values[0], Mapping):
            found[key] = _averaged(values)
            continue
        numbers = np.array([float(value) for value in values if value is not None])
        some = numbers.size > 0
        found[key] = {
            "mean": float(numbers.mean()) if some else None,
            "std": float(numbers.std()) if some else None,
            "scenes": int(numbers.size),
        }
    return found


def results_text(record: Mapping[str, Any]) -> str:
    """Return results.md: tables with a row per scene and the average, the methods, and the excluded scenes."""
    model, sizes = record["model"], record["average"]["sizes"]
    parts = [
        "# Evaluation",
        f"{record['scenes_evaluated']} scenes, {sizes['views']['mean']:.4g} views each; {_model_words(model)}.\n"
        "Averages are unweighted over these scenes, ± their standard deviation.",
        *([_protocol_text(record)] if "protocol" in record else []),
        "## Point clouds\n\n" + _table(record, "points") + "\n\nDistances in scene units.",
    ]
    for method in ALIGNMENTS:
        parts.append(f"## Depth, alignment {method}\n\n" + _table(record, f"depth.{method}"))
    parts.append("## Cameras\n\n" + _table(record, "cameras") + "\n\nPercent of all pairs of views.")
    parts.append("## How\n\n" + "\n".join(f"* {name}: {text}" for name, text in record["methods"].items()))
    if record["excluded"]:
        lines = [f"* {bad['scene']}: {bad['reason']}" for bad in record["excluded"]]
        parts.append(f"## Excluded: {len(lines)} scenes\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _protocol_text(record: Mapping[str, Any]) -> str:
    """Return the section of the protocol: its columns and its warnings."""
    found = record["protocol"]
    protocol = PROTOCOLS[found["name"]]
    lines = [*found["scenes"].items(), ("**average**", found["average"])]
    rows = [["scene", *COLUMNS], *([name, *(f"{one:.3f}" for one in row.values())] for name, row in lines)]
    text = f"## Protocol {protocol.name}\n\n{markdown_table(rows)}\n\n{protocol.words}"
    if (count := record["scenes_evaluated"]) != protocol.scenes:
        text += (
            f" {count_text(count, 'scene')} instead of the paper's {protocol.scenes}: do not compare with its averages."
        )
    warnings = [f"* {scene['name']}: {scene['warning']}" for scene in record["scenes"] if scene.get("warning")]
    return "\n\n".join([text, *(["\n".join(["Suspicious scenes:", "", *warnings])] if warnings else [])])


def _model_words(model: Mapping[str, Any]) -> str:
    words = f"{model['size']}, weights {str(model['weights_sha256'])[:12]}"
    if not model["checkpoint"] and not model["adapter"]:
        words += " (RANDOM: no checkpoint was given)"
    return words + (f", adapter {model['adapter']}" if model["adapter"] else "")


def _table(record: Mapping[str, Any], dotted: str) -> str:
    """Return a table of one group of numbers, with a line per scene and the average."""
    path = dotted.split(".")
    columns = TEXTS["columns"][path[0]]
    rows = [["scene", *columns]]
    for scene in record["scenes"]:
        numbers = reduce(lambda inner, key: inner[key], path, scene)
        rows.append([scene["name"], *(spread_text(numbers[key], None) for key in columns.values())])
    means = [reduce(lambda inner, key: inner[key], [*path, key], record["average"]) for key in columns.values()]
    rows.append(["**average**", *(spread_text(one["mean"], one["std"]) for one in means)])
    return markdown_table(rows)
