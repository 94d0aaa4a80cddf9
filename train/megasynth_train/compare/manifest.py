"""compare.json: what all runs of a comparison have in common, and what each method is.

It holds later commands to what earlier ones trained. Methods and seeds may be added at any time; what is common, or
the definition of a method that has begun, may not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.fields import identity_of
from megasynth_attr.core.run_folder import Kind, flat, is_free, read_record, require_same, share
from megasynth_train.compare.methods import Method
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.evaluate.options import MeasureSettings
from megasynth_train.training.run_folder import DEFAULTS

MANIFEST, RUNS, EVALUATION = "compare.json", "runs", "evaluation"
TRAINING_DATA, TEST_DATA, BASE_MODEL = (
    "the content of data.sources (SHA-256)",
    "the content of test.data (SHA-256)",
    "the base model of model.checkpoint and model.seed (SHA-256)",
)
FORMAT = "megasynth-attr comparison manifest 1"
COMPARISON = Kind(
    "comparison",
    MANIFEST,
    FORMAT,
    keys=("seeds", "order"),
    tables=("identity", "methods"),
    defaults=DEFAULTS | flat({"test": identity_of(MeasureSettings())}),
)
_COMMON = ("model", "data", "loss", "run")


@dataclass(frozen=True)
class Contents:
    """Hashes of what a comparison is made of, and where scenes lie."""

    training_sha256: str
    test_sha256: str
    base_sha256: str
    basis_sha256: Mapping[str, str]  # method → the mined basis it trains in or is as large as; empty: none
    notes: Mapping[str, str]  # method → what a reader of its results must know
    training_scenes: int
    test_scenes: int
    seen_scenes: tuple[str, ...]  # test scenes that are trained on


def open_manifest(
    out: Path, settings: CompareSettings, methods: Sequence[Method], contents: Contents
) -> dict[str, Any]:
    """Return compare.json, written or extended by these methods and seeds.

    ConfigError naming the differences to one that is there and has begun, or if ``out`` is something else; nothing is
    changed then.
    """
    fresh = _fresh(settings, methods, contents)
    return share(out, COMPARISON, fresh, lambda existing: _extended(out, existing, fresh), lock=True)


def read_manifest(out: Path) -> dict[str, Any]:
    """Return compare.json; DatasetError if it is missing or damaged."""
    return read_record(out, COMPARISON)


def run_folder(out: Path, method: str, seed: int | None) -> Path:
    """Return the folder of one run; the base model, which is not trained, has one for all seeds."""
    return out / RUNS / method if seed is None else out / RUNS / method / f"seed_{seed}"


def runs_of(name: str, record: Mapping[str, Any], seeds: Sequence[int]) -> list[tuple[str, int | None]]:
    """Return the runs of a method: one per seed, or one in all if it is not trained."""
    return [(name, None)] if record["adapter"] is None else [(name, seed) for seed in seeds]


def method_record(method: Method, contents: Contents) -> dict[str, Any]:
    """Return what defines a method."""
    return {
        "adapter": None if method.adapter is None else to_plain(method.adapter),
        "optim": None if method.adapter is None else to_plain(method.optim),
        "basis": method.basis,
        "basis_sha256": contents.basis_sha256[method.name],
    }


def notes_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what a reader must know about a method's results, by method; older manifests have no notes."""
    return dict(manifest.get("notes", {}))


def _fresh(settings: CompareSettings, methods: Sequence[Method], contents: Contents) -> dict[str, Any]:
    common = settings.training()
    sections = {name: identity_of(getattr(common, name)) for name in _COMMON}
    identity = flat({**sections, "test": identity_of(settings.test)})
    del identity["run.seed"]  # each run has its own
    identity["optim.steps"] = common.optim.steps
    identity[TRAINING_DATA] = contents.training_sha256
    identity[TEST_DATA] = contents.test_sha256
    identity[BASE_MODEL] = contents.base_sha256
    return {
        "format": FORMAT,
        "identity": identity,
        "methods": {method.name: method_record(method, contents) for method in methods},
        "order": [method.name for method in methods],
        "notes": dict(contents.notes),
        "seeds": list(settings.seeds),
        "scenes": {
            "training": contents.training_scenes,
            "test": contents.test_scenes,
            "seen": list(contents.seen_scenes),
        },
    }


def _extended(out: Path, existing: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``existing`` with what ``fresh`` adds; what no run has begun with may be replaced."""
    begun = {name for name in existing["methods"] if _has_begun(out, name, existing["seeds"])}
    if not begun:
        return dict(fresh)
    require_same(out, COMPARISON, existing["identity"], fresh["identity"])
    for name in sorted(begun & fresh["methods"].keys()):
        before, now = ({f"method {name}": record["methods"][name]} for record in (existing, fresh))
        require_same(out, COMPARISON, before, now)
    methods = {**existing["methods"], **fresh["methods"]}
    order = list(dict.fromkeys([*existing["order"], *fresh["order"]]))
    kept = [name for name in order if name in begun or name in fresh["methods"]]
    return {
        **fresh,
        "methods": {name: methods[name] for name in kept},
        "order": kept,
        "notes": {name: note for name, note in {**notes_of(existing), **fresh["notes"]}.items() if name in kept},
        "seeds": sorted({*existing["seeds"], *fresh["seeds"]}),
    }


def _has_begun(out: Path, name: str, seeds: Sequence[int]) -> bool:
    trained = any(not is_free(run_folder(out, name, seed)) for seed in seeds)
    return trained or (run_folder(out, name, None) / EVALUATION).is_dir()
