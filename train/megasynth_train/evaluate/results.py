"""From the numbers of the scenes to results.json and the tables of results.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from megasynth_attr import __version__
from megasynth_attr.core.pages.words import markdown_table, spread_text
from megasynth_train.data.scene import BadScene
from megasynth_train.evaluate.cameras import THRESHOLDS_DEG
from megasynth_train.evaluate.depth import ALIGNMENTS

FORMAT = "megasynth-attr evaluation 1"
GROUPS = ("points", "depth", "cameras", "alignment", "sizes")

UNITS = {
    "points.accuracy_*, points.completeness_*": "scene units",
    "points.nc*": "|cosine| of the angle between normals, 0 to 1",
    "depth.*.abs_rel, log_rmse": "no unit (log: natural logarithm)",
    "depth.*.sq_rel, rmse": "scene units",
    "depth.*.delta_k": "share of pixels with max(p/g, g/p) < 1.25^k, 0 to 1",
    "depth.*.fit_scale": "scene units per unit of the prediction",
    "depth.*.fit_shift": "scene units",
    "cameras.rra_t, rta_t, auc_t": "percent of the pairs of views, thresholds in degrees",
    "cameras.*_deg": "degrees",
    "alignment.scale": "scene units per unit of the prediction",
    "alignment.icp_fitness": "share of predicted points with a true point within icp_distance, 0 to 1",
    "alignment.icp_rmse": "scene units, over those points",
    "sizes.mean_distance": "scene units: mean distance of the true points from the first camera",
}

METHODS = {
    "points": (
        "Depth unprojected with the predicted cameras, all pixels with a true depth; Umeyama similarity, then "
        "point-to-point rigid ICP (30 iterations); normals from 30 neighbours; accuracy: predicted point to nearest "
        "true point, completeness: the other way round, measured at those pixels only; nc: mean of nc1 and nc2."
    ),
    "depth": (
        "One fit per scene over the valid pixels maps the prediction to the truth: median (ratio of medians), scale "
        "and scale_shift (least absolute residuals). none: no fit; depth in the network's unit, the mean distance of "
        "the true points from the first camera."
    ),
    "cameras": (
        "All pairs of views. rra_t, rta_t: rotation error, angle between directions of translation (opposite ones "
        "count as equal) below t degrees; auc_t: mean over 1…t degrees of the share of pairs whose larger error is "
        "below. Pairs without a true baseline have no rta and enter auc by their rotation."
    ),
    "average": "Unweighted over the scenes evaluated that have the number; std: population standard deviation.",
}


def results_record(
    scenes: Sequence[Mapping[str, Any]],
    excluded: Sequence[BadScene],
    settings: Mapping[str, Any],
    model: Mapping[str, Any],
    data: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what results.json holds."""
    return {
        "format": FORMAT,
        "version": __version__,
        "settings": dict(settings),
        "model": dict(model),
        "data": dict(data),
        "units": UNITS,
        "methods": METHODS,
        "scenes": [dict(scene) for scene in scenes],
        "scenes_evaluated": len(scenes),
        "excluded": [{"scene": bad.scene, "reason": bad.reason} for bad in excluded],
        "scenes_excluded": len(excluded),
        "average": average(scenes),
    }


def average(scenes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return {mean, std, scenes} of every number of the scenes, nested as they are; None where no scene has it."""
    return {group: _averaged([scene[group] for scene in scenes]) for group in GROUPS}


def _averaged(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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
    """Return results.md: three tables with a row per scene and the average, then what was excluded."""
    model, sizes = record["model"], record["average"]["sizes"]
    parts = [
        "# Evaluation",
        f"{record['scenes_evaluated']} scenes, {sizes['views']['mean']:.4g} views each; {_model_words(model)}.\n"
        "Averages are unweighted over these scenes, ± their standard deviation.",
        "## Point clouds\n\n" + _table(record, "points", _POINT_COLUMNS) + "\n\nDistances in scene units.",
    ]
    for method in ALIGNMENTS:
        parts.append(f"## Depth, alignment {method}\n\n" + _table(record, f"depth.{method}", _DEPTH_COLUMNS))
    camera_columns = {
        f"{name.upper()}@{limit}": f"{name}_{limit}" for name in ("rra", "rta", "auc") for limit in THRESHOLDS_DEG
    }
    parts.append("## Cameras\n\n" + _table(record, "cameras", camera_columns) + "\n\nPercent of the pairs of views.")
    parts.append("## How\n\n" + "\n".join(f"* {name}: {text}" for name, text in record["methods"].items()))
    if record["excluded"]:
        lines = [f"* {bad['scene']}: {bad['reason']}" for bad in record["excluded"]]
        parts.append(f"## Excluded: {len(lines)} scenes\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


_POINT_COLUMNS = {
    "Acc": "accuracy_mean",
    "Acc med": "accuracy_median",
    "Comp": "completeness_mean",
    "Comp med": "completeness_median",
    "NC": "nc_mean",
    "NC med": "nc_median",
}
_DEPTH_COLUMNS = {
    "AbsRel": "abs_rel",
    "SqRel": "sq_rel",
    "RMSE": "rmse",
    "logRMSE": "log_rmse",
    "δ<1.25": "delta_1",
    "δ<1.25²": "delta_2",
    "δ<1.25³": "delta_3",
}


def _model_words(model: Mapping[str, Any]) -> str:
    words = f"{model['size']}, weights {str(model['weights_sha256'])[:12]}"
    if not model["checkpoint"] and not model["adapter"]:
        words += " (RANDOM: no checkpoint was given)"
    return words + (f", adapter {model['adapter']}" if model["adapter"] else "")


def _table(record: Mapping[str, Any], group: str, columns: Mapping[str, str]) -> str:
    """Return a table with a line per scene and the average."""
    rows = [["scene", *columns]]
    for scene in record["scenes"]:
        rows.append([scene["name"], *(spread_text(_inside(scene, group)[key], None) for key in columns.values())])
    mean = _inside(record["average"], group)
    rows.append(["**average**", *(spread_text(mean[key]["mean"], mean[key]["std"]) for key in columns.values())])
    return markdown_table(rows)


def _inside(record: Mapping[str, Any], dotted: str) -> Mapping[str, Any]:
    for key in dotted.split("."):
        record = record[key]
    return record
