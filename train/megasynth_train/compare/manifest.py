"""compare.json: what all runs of a comparison have in common, and what each method is.

It holds later commands to what earlier ones trained. Methods and seeds may be added at any time; what is common, or
the definition of a method that has begun, may not change.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import json_bytes, read_json, storage_errors
from megasynth_attr.core.lock import LOCK
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.dataset.paths import TMP
from megasynth_train import finetune
from megasynth_train.compare.methods import Method
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.training.checkpoints import check_same_run
from megasynth_train.training.run_folder import has_begun

MANIFEST, RUNS, EVALUATION = "compare.json", "runs", "evaluation"
TRAINING_DATA, TEST_DATA, BASE_MODEL = (
    "the content of data.sources (SHA-256)",
    "the content of test.data (SHA-256)",
    "the base model of model.checkpoint and model.seed (SHA-256)",
)
FORMAT = "megasynth-attr comparison manifest 1"
TEST_FREE_KEYS = ("data", "pictures", "page", "page_scenes")  # change no number; data are compared by content
_COMMON = ("model", "data", "loss", "run")
_KEYS = ("identity", "methods", "seeds")


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

    ConfigError naming the first difference to one that is there and has begun, or if ``out`` is something else;
    nothing is changed then.
    """
    _check_out(out)
    fresh = json.loads(json_bytes(_fresh(settings, methods, contents)))
    with storage_errors("the comparison's manifest", out):
        out.mkdir(parents=True, exist_ok=True)
    with _held(out):
        manifest = _extended(out, read_manifest(out), fresh) if (out / MANIFEST).exists() else fresh
        with storage_errors("the comparison's manifest", out):
            replace_atomically(out / MANIFEST, json_bytes(manifest))
    return manifest


def read_manifest(out: Path) -> dict[str, Any]:
    """Return compare.json; DatasetError if it is missing or damaged."""
    manifest = read_json(out / MANIFEST, FORMAT)
    if missing := [key for key in _KEYS if key not in manifest]:
        raise DatasetError(f"{out / MANIFEST} is damaged: {missing[0]} is missing; restore it or choose another out=")
    return manifest


def run_folder(out: Path, method: str, seed: int | None) -> Path:
    """Return the folder of one run; the base model, which is not trained, has one for all seeds."""
    return out / RUNS / method if seed is None else out / RUNS / method / f"seed_{seed}"


def runs_of(name: str, record: Mapping[str, Any], seeds: Sequence[int]) -> list[tuple[str, int | None]]:
    """Return the runs of a method: one per seed, or one in all if it is not trained."""
    return [(name, None)] if record["adapter"] is None else [(name, seed) for seed in seeds]


def measured_keys(test: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a measurement that change its numbers."""
    return {key: value for key, value in test.items() if key not in TEST_FREE_KEYS}


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
    identity: dict[str, Any] = {
        f"{section}.{key}": value
        for section in _COMMON
        for key, value in to_plain(getattr(common, section)).items()
        if f"{section}.{key}" not in finetune.FREE_KEYS | {"run.seed"}
    }
    identity["optim.steps"] = common.optim.steps
    test = {f.name: to_plain(getattr(settings.test, f.name)) for f in fields(settings.test)}
    identity |= {f"test.{key}": value for key, value in measured_keys(test).items()}
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
    check_same_run(existing["identity"], fresh["identity"], out)
    for name in sorted(begun & fresh["methods"].keys()):
        before, now = existing["methods"][name], fresh["methods"][name]
        check_same_run(_flat(name, before), _flat(name, now), out)
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


def _flat(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's record with one level of keys, as ``check_same_run`` names them."""
    flat: dict[str, Any] = {}
    for section, values in record.items():
        inside = values.items() if isinstance(values, Mapping) else [("", values)]
        flat |= {f"method {name}: {section}{'.' if key else ''}{key}": value for key, value in inside}
    return flat


def _has_begun(out: Path, name: str, seeds: Sequence[int]) -> bool:
    trained = any(has_begun(run_folder(out, name, seed)) for seed in seeds)
    return trained or (run_folder(out, name, None) / EVALUATION).is_dir()


def _check_out(out: Path) -> None:
    """Raise ConfigError if ``out`` holds something and no manifest; the manifest is older than any run."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out={out} is a file; name a folder")
    foreign = sorted({path.name for path in out.iterdir()} - {TMP, LOCK}) if out.is_dir() else []
    if foreign and not (out / MANIFEST).exists():
        raise ConfigError(f"{out} holds {foreign[0]}, but no {MANIFEST}: it is no comparison; choose another out=")


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Hold the manifest while it is read and written; the kernel lets go when the process ends, even by -9."""
    with storage_errors("the comparison's manifest", out):
        file = (out / LOCK).open("a")
    with file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield
