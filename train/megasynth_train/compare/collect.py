"""The results of a comparison's finished runs, read from their folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import json_bytes, read_json, sha256_of
from megasynth_attr.core.temporary import replace_atomically
from megasynth_train.adapters.storage import RECORD
from megasynth_train.compare.manifest import CONTROL, EVALUATION, TEST_DATA, Run, runs_of
from megasynth_train.compare.prepare import by_part
from megasynth_train.compare.statistics import METRICS, Replicate
from megasynth_train.evaluate.results import FORMAT as EVALUATION_FORMAT
from megasynth_train.training.metrics import FILE as METRICS_FILE
from megasynth_train.training.metrics import read_metrics
from megasynth_train.training.run_folder import BASE_MODEL, read_done

RESULTS, PAGE = "results.json", "index.html"
CONTROL_FILE, CONTROL_FORMAT = "control.json", "megasynth-attr control 1"


@dataclass(frozen=True)
class Row(Run):
    """One finished run. ``parameters``: trained parameters of aggregator, heads, encoder; ``scenes``: metrics."""

    parameters: dict[str, int]
    seconds: float | None
    objective: float | None  # mean over the last interval of training
    skipped_steps: int
    scenes: dict[str, dict[str, float | None]]  # scene → metric → value
    excluded: tuple[str, ...]
    evaluation: Path


@dataclass(frozen=True)
class Missing(Run):
    """A run without a result, and why."""

    reason: str


@dataclass(frozen=True)
class Results:
    """All runs of a manifest, finished or not, in the order of its methods; ``alignment`` is that of depth metrics."""

    rows: tuple[Row, ...]
    missing: tuple[Missing, ...]
    alignment: str

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods with at least one finished run."""
        return tuple(dict.fromkeys(row.method for row in self.rows))

    @cached_property
    def scenes(self) -> tuple[str, ...]:
        """Return the scenes that every run could be measured on; only these are comparable."""
        sets = [set(row.scenes) for row in self.rows]
        return tuple(sorted(set.intersection(*sets))) if sets else ()

    @property
    def uneven(self) -> tuple[Row, ...]:
        """Return the runs that left out scenes others were measured on."""
        everything = set().union(*(row.scenes for row in self.rows))
        return tuple(row for row in self.rows if set(row.scenes) != everything)

    def values(self, method: str, metric: str) -> dict[Replicate, float]:
        """Return a method's mean over the common scenes, by seed; a seed that lacks a value is left out."""
        return {key: sum(numbers) / len(numbers) for key, numbers in self.scores(method, metric).items()}

    def scores(self, method: str, metric: str) -> dict[Replicate, list[float]]:
        """Return a method's numbers of the common scenes, by seed; a seed that lacks one is left out."""
        found: dict[Replicate, list[float]] = {}
        for row in self.of(method):
            numbers = [row.scenes[scene][metric] for scene in self.scenes]
            known = [number for number in numbers if number is not None]
            if known and len(known) == len(numbers):
                found[row.replicate] = known
        return found

    def of(self, method: str) -> tuple[Row, ...]:
        """Return a method's finished runs."""
        return tuple(row for row in self.rows if row.method == method)


def collect(
    out: Path, manifest: Mapping[str, Any], alignment: str, failures: Mapping[Run, str], evaluation: str = EVALUATION
) -> Results:
    """Return the results of all runs of ``manifest``; ``failures`` says why runs of this command failed.

    ``evaluation``: the folder of each run that holds its results.
    """
    rows: list[Row] = []
    missing = []
    for run in (run for name in manifest["order"] for run in runs_of(name, manifest)):
        reason = failures.get(run, "")
        try:
            if not reason and (record := current_evaluation(out, run, manifest, evaluation)) is not None:
                rows.append(_row(out, run, record, alignment, evaluation))
                continue
        except DatasetError as error:
            reason = str(error)
        missing.append(Missing(run.method, run.seed, reason or "not finished", member=run.member))
    return Results(tuple(rows), tuple(missing), alignment)


def current_evaluation(
    out: Path, run: Run, manifest: Mapping[str, Any], evaluation: str = EVALUATION, *, page: bool = False
) -> dict[str, Any] | None:
    """Return a run's evaluation if it measured this run's adapter on the test data and settings of ``manifest``.

    None if there is none, it measured something else, or (``page``) it lacks the page of point clouds.
    """
    folder, identity = run.folder(out), manifest["identity"]
    file = folder / evaluation / RESULTS
    if not file.is_file() or (page and not (file.parent / PAGE).is_file()):
        return None
    record = read_json(file, EVALUATION_FORMAT)
    asked = {key.removeprefix("test."): value for key, value in identity.items() if key.startswith("test.")}
    measured = {key: record["settings"][key] for key in asked if key in record["settings"]}
    if measured != asked or record["data"]["fingerprint"] != identity[TEST_DATA]:
        return None
    model = record["model"]
    if CONTROL in manifest["methods"][run.method]:
        is_of_run = model["adapter_record_sha256"] == evaluated_adapter(
            folder, manifest["methods"][run.method], evaluation
        )
    elif run.seed is None:
        is_of_run = not model["adapter"] and model["weights_sha256"] == identity[BASE_MODEL]
    else:
        done = read_done(folder)
        is_of_run = done is not None and model["adapter_record_sha256"] == sha256_of(folder / done["result"] / RECORD)
    return record if is_of_run else None


def evaluated_adapter(folder: Path, method: Mapping[str, Any], evaluation: str) -> str:
    """Return the hash of the adapter of a control that was measured in ``folder``, "" if it was made of others.

    The adapter itself is not kept: ``keep_evaluated`` writes down what it was made of.
    """
    file = folder / CONTROL_FILE
    record = read_json(file, CONTROL_FORMAT) if file.is_file() else {}
    return str(record["evaluated"].get(evaluation, "")) if record.get("method") == method else ""


def keep_evaluated(folder: Path, method: Mapping[str, Any], evaluation: str, sha256: str) -> None:
    """Write down that the adapter of a control with this hash was measured."""
    file = folder / CONTROL_FILE
    record = read_json(file, CONTROL_FORMAT) if file.is_file() else {}
    before = record["evaluated"] if record.get("method") == method else {}
    record = {"format": CONTROL_FORMAT, "method": dict(method), "evaluated": before | {evaluation: sha256}}
    replace_atomically(file, json_bytes(record))


def learning_curve(folder: Path) -> list[tuple[int, float]]:
    """Return (step, mean objective) of every logged interval with at least one finite step."""
    return [(line["step"], line["objective"]) for line in _metrics(folder) if line.get("objective") is not None]


def _metrics(folder: Path) -> list[dict[str, Any]]:
    return read_metrics(folder) if (folder / METRICS_FILE).is_file() else []


def _row(out: Path, run: Run, record: Mapping[str, Any], alignment: str, evaluation: str) -> Row:
    folder = run.folder(out)
    done, parts = None, []
    if run.seed is not None:
        done = read_done(folder)
        if done is None:
            raise DatasetError(f"{folder} lost its done.json while it was read; run the same command again")
        parts = read_json(folder / done["result"] / RECORD)["parameters"]["parts"]
    lines = _metrics(folder)
    return Row(
        method=run.method,
        seed=run.seed,
        member=run.member,
        parameters=by_part((part["part"], part["parameters"]) for part in parts),
        seconds=sum(line["seconds"] for line in lines) if lines else None,
        objective=done["objective"] if done else None,
        skipped_steps=done["skipped_steps"] if done else 0,
        scenes={scene["name"]: _numbers(scene, alignment) for scene in record["scenes"]},
        excluded=tuple(bad["scene"] for bad in record["excluded"]),
        evaluation=folder / evaluation,
    )


def _numbers(scene: Mapping[str, Any], alignment: str) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for metric in METRICS:
        value: Any = scene
        for key in metric.path:
            value = value[key.format(alignment=alignment)]
        found[metric.key] = value
    return found
