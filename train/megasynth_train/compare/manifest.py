"""compare.json: what all runs of a comparison have in common, and how each method is defined.

Later commands must agree with it. Methods and seeds may be added at any time; the common settings, and the definition
of a method that has begun, may not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import identity_of
from megasynth_attr.core.pages.words import listed
from megasynth_attr.core.run_folder import Kind, flat, is_free, require_same, share
from megasynth_train.adapters.subspace.opening import check_model
from megasynth_train.compare.methods import Method, is_control
from megasynth_train.compare.prepare import Prepared
from megasynth_train.compare.settings import TUNING, CompareSettings, across_of, evaluation_of, tuning_data
from megasynth_train.compare.statistics import Replicate
from megasynth_train.data.sources import open_sources
from megasynth_train.evaluate.inputs import select_scenes
from megasynth_train.evaluate.options import MeasureSettings
from megasynth_train.training.base_model import base_model
from megasynth_train.training.loop import say
from megasynth_train.training.run_folder import BASE_MODEL, DEFAULTS, TRAINING_DATA
from megasynth_train.vggt.checkpoint import weights_hash

MANIFEST, RUNS, EVALUATION, ACROSS = "compare.json", "runs", "evaluation", "across"
CONTROL = "control"  # in a method's record: what a control is made of
TEST_DATA = "the content of test.data (SHA-256)"
FORMAT = "megasynth-attr comparison manifest 1"
COMPARISON = Kind(
    "comparison",
    MANIFEST,
    FORMAT,
    keys=("seeds", "order"),
    tables=("identity", "methods"),
    paths=("methods",),
    defaults=DEFAULTS | flat({"test": identity_of(MeasureSettings())}),
)
_COMMON = ("model", "data", "loss", "run")


@dataclass(frozen=True)
class Run:
    """One run of a comparison. What is not trained has seed None; ``member`` is the adapter that a control leaves out,
    "" for the base model and all others."""

    method: str
    seed: int | None
    member: str = field(default="", kw_only=True, metadata={"added": True, "younger": True})

    @property
    def replicate(self) -> Replicate:
        """Return what tells this run from the others of its method: the seed, or the adapter that is left out."""
        return self.member or self.seed

    @property
    def name(self) -> str:
        """Return the run's name for messages."""
        if self.member:
            return f"{self.method}, {self.member}"
        return self.method if self.seed is None else f"{self.method}, seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Return the run's folder inside ``out``, the comparison's."""
        folder = out / RUNS / self.method
        if self.member:
            return folder / self.member
        return folder if self.seed is None else folder / f"seed_{self.seed}"


def open_manifest(out: Path, prepared: Prepared) -> dict[str, Any]:
    """Return compare.json, written or extended by the methods and seeds of ``prepared``.

    ConfigError, with nothing changed, if ``out`` is something else or a comparison that has begun with other settings,
    naming the differences. ConfigError or DatasetError if data, base model and basis do not fit.
    """
    fresh = _fresh(prepared)
    return share(out, COMPARISON, fresh, lambda existing: _extended(out, existing, fresh), lock=True)


def runs_of(name: str, manifest: Mapping[str, Any]) -> list[Run]:
    """Return the runs of a method: one per seed, or, if it is not trained, one per adapter left out or one in all."""
    record = manifest["methods"][name]
    if record["adapter"] is not None:
        return [Run(name, seed) for seed in manifest["seeds"]]
    return [Run(name, None, member=member) for member in record.get(CONTROL, {}).get("left_out") or [""]]


def notes_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what a reader must know about a method's results, by method; older manifests have no notes."""
    return dict(manifest.get("notes", {}))


def _fresh(prepared: Prepared) -> dict[str, Any]:
    settings = prepared.settings
    common = settings.training()
    training, test = open_sources(common.data), select_scenes(evaluation_of(settings))
    for note in (*training.notes, *test.notes):
        say(note)
    model = base_model(settings.model, [])
    base_sha256 = weights_hash(model)
    if prepared.bases is not None and (
        note := check_model(prepared.bases.whole, model, base_sha256, str(prepared.bases.file))
    ):
        say(note)
    seen = {scene.folder for scene in training.train}
    sections = {name: identity_of(getattr(common, name)) for name in _COMMON}
    identity = flat({**sections, "test": identity_of(settings.test)})
    del identity["run.seed"]  # each run has its own
    identity["optim.steps"] = common.optim.steps
    identity[TRAINING_DATA] = training.fingerprint
    identity[TEST_DATA] = test.fingerprint
    identity[BASE_MODEL] = base_sha256
    if settings.tune.lr:
        identity |= flat({"tune": to_plain(settings.tune)})
        _check_validation(settings, {scene.folder for scene in test.scenes})
    across = _across(settings, seen) if settings.across.data else {}
    return {
        "format": FORMAT,
        **across,
        "identity": identity,
        "methods": {one.name: _method_record(one, prepared) for one in prepared.methods},
        "order": [method.name for method in prepared.methods],
        "notes": prepared.notes,
        "seeds": list(settings.seeds),
        "scenes": {
            "training": len(training.train),
            "test": len(test.scenes),
            "seen": [scene.name for scene in test.scenes if scene.folder in seen],  # trained on
        },
    }


def _across(settings: CompareSettings, seen: set[Path]) -> dict[str, Any]:
    """Return what the manifest says of the data of another domain: they may be added later, or exchanged."""
    test = select_scenes(evaluation_of(settings, across=True))
    for note in test.notes:
        say(note)
    return {
        ACROSS: {
            "identity": flat({"test": identity_of(across_of(settings))}) | {TEST_DATA: test.fingerprint},
            "scenes": {
                "test": len(test.scenes),
                "seen": [scene.name for scene in test.scenes if scene.folder in seen],
            },
        }
    }


def across_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest as if the data of another domain were the test data."""
    own = manifest[ACROSS]
    rest = {key: value for key, value in manifest["identity"].items() if not key.startswith("test.")}
    return {
        **manifest,
        "identity": rest | own["identity"],
        "scenes": manifest["scenes"] | own["scenes"],
    }


def _check_validation(settings: CompareSettings, tested: set[Path]) -> None:
    """Raise ConfigError if learning rates cannot be chosen by scenes that are not tested."""
    try:
        validation = open_sources(tuning_data(settings)).validation
    except ConfigError as error:
        raise ConfigError(f"tune.share={settings.tune.share:g}: {error}") from None
    if not validation:
        raise ConfigError(
            f"tune.lr= needs validation scenes, and a share of {tuning_data(settings).validation_share:g} holds out "
            "none of data=: add scenes, or raise tune.share (data.validation_share if that is not 0)"
        )
    if shared := [scene.name for scene in validation if scene.folder in tested]:
        raise ConfigError(
            f"tune.lr= chooses learning rates by validation scenes of data=, and {len(shared)} of them are test "
            f"scenes ({listed(shared)}): choose other test data with test="
        )


def _method_record(method: Method, prepared: Prepared) -> dict[str, Any]:
    """Return what defines a method."""
    record = {
        "adapter": to_plain(method.adapter),
        "optim": None if method.adapter is None else to_plain(method.optim),
        "basis": method.basis,
        "basis_sha256": prepared.sizes[method.name].basis_sha256,
    }
    if is_control(method.name) and method.adapter is None:
        record[CONTROL] = prepared.origin.made_of(method.name)
    return record


def _extended(out: Path, existing: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``existing`` with what ``fresh`` adds; a method without a begun run may be replaced."""
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
    trained = any(not is_free(Run(name, seed).folder(out)) for seed in seeds) or not is_free(out / TUNING / name)
    folder = Run(name, None).folder(out)
    return trained or any((one / EVALUATION).is_dir() for one in (folder, *folder.glob("*/")))
