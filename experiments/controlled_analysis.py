"""What the adapters of the controlled experiment have in common: the numbers behind its tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from megasynth_attr.core.errors import ConfigError
from megasynth_train.data.scene import TrainingScene
from megasynth_train.data.sources import open_sources
from megasynth_train.evaluate.inputs import SceneInput, read_scene
from megasynth_train.evaluate.options import EvaluateSettings
from megasynth_train.evaluate.run import evaluate_scene
from megasynth_train.subspace.basis import haar_frame
from megasynth_train.subspace.components import dataset_means, variance_components
from megasynth_train.subspace.core import Core, core_coordinates
from megasynth_train.subspace.extract import Options
from megasynth_train.subspace.held_out import Shares, around_the_mean, held_out, mined, same
from megasynth_train.subspace.peft_folder import open_adapter
from megasynth_train.subspace.peft_updates import StoredAdapter
from megasynth_train.subspace.sharing import label_test, overlaps
from megasynth_train.training.base_model import base_model
from megasynth_train.training.cluster_manifest import read_manifest
from megasynth_train.training.run_folder import ADAPTER, DONE
from megasynth_train.training.settings import DataSettings, ModelSettings
from megasynth_train.vggt.model import VGGT

ATTRIBUTES = ("texture", "geometry", "camera", "lighting")  # without the two controls
MEASURES = ("out", "inner", "coherence")
WIDTH_PX = 98  # of the network's input
CONSTANTS = ("foreground", "brightness", "brightness of the foreground", "depth of the foreground")
BASES = (
    "same dataset, other seeds",
    "same attribute, other datasets",
    "the same, mean removed",
    "other attributes",
    "random",
)
METRICS = ("AbsRel", "Chamfer", "AUC@30")


@dataclass(frozen=True)
class Member:
    """A finished adapter and where it comes from."""

    stored: StoredAdapter
    attribute: str
    dataset: str
    seed: int


def finished(folders: Mapping[int, Path]) -> list[Member]:
    """Return the finished adapters of each seed's cluster, sorted by dataset and seed; ConfigError without any."""
    members = []
    for seed, folder in folders.items():
        entries = read_manifest(folder)["adapters"] if folder.is_dir() else {}
        for name, entry in entries.items():
            if (folder / name / DONE).is_file():
                stored = open_adapter(folder / name / ADAPTER, f"{name}+{seed}", entry["attribute"], lambda _: True)
                members.append(Member(stored, entry["attribute"], name, seed))
    if not members:
        raise ConfigError(f"no adapter is finished in {', '.join(map(str, folders.values()))}; leave out analyse=true")
    return sorted(members, key=lambda one: (one.dataset, one.seed))


def analyse(members: Sequence[Member], dimension: int, permutations: int) -> dict[str, Any]:
    """Return overlaps of conditions, components of variance, label tests and held-out energies, means over layers."""
    attributes = [one.attribute for one in members]
    datasets = [one.dataset for one in members]
    seeds = [one.seed for one in members]
    matrices: dict[str, Any] = dict.fromkeys(MEASURES, 0)
    chance: dict[str, Any] = dict.fromkeys(MEASURES, 0)
    energies = []
    modules = sorted(members[0].stored.shapes)
    for module in tqdm(modules, desc="layers", unit="layer"):
        outputs, inputs = members[0].stored.shapes[module]
        core = core_coordinates([one.stored.update(module) for one in members])
        found = overlaps(core, outputs, inputs)
        for name in MEASURES:
            matrices[name] = matrices[name] + getattr(found, name) / len(modules)
        chance["out"] += found.out_chance[0, 1] / len(modules)
        chance["inner"] += found.inner_chance[0, 1] / len(modules)
        energies.append(held_out_energies(core, attributes, datasets, dimension))
    rng = np.random.default_rng(1)
    result: dict[str, Any] = {"adapters": len(members), "layers": len(modules), "seeds": sorted(set(seeds))}
    result["datasets"] = sorted(set(datasets))
    result["chance"] = chance
    for name, matrix in matrices.items():
        whole, names = dataset_means(matrix, datasets)
        of_dataset = [name.rpartition("_")[0] for name in names]
        result[name] = {
            "components": components(matrix, attributes, datasets, seeds),
            "tests": label_tests(whole, of_dataset, permutations, rng),
            "conditions": condition_means(whole, of_dataset),
            "datasets": np.round(whole, 6).tolist(),
        }
    result["energies"] = energy_summary(energies, attributes)
    return result


def components(
    matrix: np.ndarray, attributes: Sequence[str], datasets: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return the components of variance of all conditions, of the four attributes, and of each condition's own part."""
    result = {"six conditions": asdict(variance_components(matrix, attributes, datasets, seeds))}
    chosen = [i for i, name in enumerate(attributes) if name in ATTRIBUTES]
    if chosen:
        parts = ([of[i] for i in chosen] for of in (attributes, datasets, seeds))
        result["four attributes"] = asdict(variance_components(matrix[np.ix_(chosen, chosen)], *parts))
    return result


def label_tests(
    matrix: np.ndarray, labels: Sequence[str], permutations: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the label test, which exchanges datasets, of all conditions, of the attributes, and with each left out."""
    names = list(dict.fromkeys(labels))
    four = [name for name in ATTRIBUTES if name in names]
    groups = {"six conditions": names, "four attributes": four}
    groups |= {f"six without {left_out}": [n for n in names if n != left_out] for left_out in names}
    groups |= {f"four without {left_out}": [n for n in four if n != left_out] for left_out in four}
    results = {}
    for group, kept in groups.items():
        chosen = [i for i, label in enumerate(labels) if label in kept]
        of_chosen = [labels[i] for i in chosen]
        if 2 <= len(set(of_chosen)) < len(of_chosen):
            results[group] = asdict(label_test(matrix[np.ix_(chosen, chosen)], of_chosen, permutations, rng))
    return results


def condition_means(matrix: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Return the mean overlap of every two conditions' datasets, and of one dataset's seeds, by condition."""
    names = list(dict.fromkeys(labels))
    codes = np.array([names.index(label) for label in labels])
    others = ~np.eye(len(codes), dtype=bool)
    means = {}
    for i, one in enumerate(names):
        means[one] = {"same dataset": float(np.mean(np.diag(matrix)[codes == i]))}
        for j, other in enumerate(names):
            pairs = others & np.outer(codes == i, codes == j)
            means[one][other] = float(matrix[pairs].mean()) if pairs.any() else None
    return means


def held_out_energies(
    core: Core, attributes: Sequence[str], datasets: Sequence[str], dimension: int
) -> dict[str, Shares]:
    """Return the energy of each adapter inside bases mined without it, by what the basis was mined from.

    "other attributes" has as many datasets as "same attribute": of every other attribute all but the one with the
    adapter's number; the shares are averaged over these attributes.
    """
    of_attribute, of_dataset = same(attributes), same(datasets)
    of_number = same([name.rpartition("_")[2] for name in datasets])
    others = of_attribute & ~of_dataset
    mean = mined(dimension, "svd", Options())
    found = {
        BASES[0]: held_out(core, of_dataset & ~np.eye(len(datasets), dtype=bool), mean),
        BASES[1]: held_out(core, others, mean),
        BASES[2]: held_out(core, others, around_the_mean(dimension)),
    }
    per_attribute = []
    for name in dict.fromkeys(attributes):
        members = np.asarray(attributes) == name
        per_attribute.append(held_out(core, members & ~of_number & ~members[:, None], mean))
    found[BASES[3]] = Shares(
        *(_mean_of_known([vars(one)[field.name] for one in per_attribute]) for field in fields(Shares))
    )
    return found


def _mean_of_known(rows: Sequence[np.ndarray]) -> np.ndarray:
    known = np.isfinite(rows)
    counts = known.sum(axis=0)
    return np.divide(np.nansum(rows, axis=0), counts, out=np.full(len(counts), np.nan), where=counts > 0)


def energy_summary(layers: Sequence[Mapping[str, Shares]], attributes: Sequence[str]) -> dict[str, Any]:
    """Return the mean over layers and adapters by basis and side, of all adapters and of each condition.

    "random": what a random basis holds, exact.
    """
    rows = {}
    for side, chance in (("out", "out_chance"), ("inner", "inner_chance")):
        for basis in BASES[:-1]:
            rows[f"{basis}, {side}"] = np.mean([vars(layer[basis])[side] for layer in layers], axis=0)
        rows[f"{BASES[-1]}, {side}"] = np.mean([vars(layer[BASES[1]])[chance] for layer in layers], axis=0)
    groups = {"all": np.ones(len(attributes), bool)}
    groups |= {name: np.asarray(attributes) == name for name in dict.fromkeys(attributes)}
    return {name: {group: _mean(values[chosen]) for group, chosen in groups.items()} for name, values in rows.items()}


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def functional_controls(
    members: Sequence[Member], out: Path, checkpoint: str, per_condition: int, rank: int
) -> list[dict[str, Any]]:
    """Return what adapters do to the model, without any tuning: one row per held-out adapter, scenes and variant.

    Of each condition the first seed's adapters of the first ``per_condition`` datasets are held out. The others are
    those of the condition's other datasets, all seeds. The bases have ``rank`` dimensions per side and layer.
    """
    model = base_model(ModelSettings(size="vggt-tiny", checkpoint=checkpoint), [])
    settings = EvaluateSettings(views=4, width_px=WIDTH_PX, max_points=1000, threads=1)

    def read(folder: Path) -> list[SceneInput]:
        scenes: Sequence[TrainingScene] = open_sources(
            DataSettings(sources=(str(folder),), validation_share=0, images_per_step=4)
        ).train
        return [read_scene(scene, settings, model.config) for scene in scenes]

    def measured(scenes: Sequence[SceneInput]) -> list[list[float]]:
        return [_metrics(evaluate_scene(model, scene, "cpu", settings).numbers) for scene in scenes]

    new_scenes = read(out / "held_out" / "everything_00")
    base_new = measured(new_scenes)
    rows: list[dict[str, Any]] = []
    chosen: dict[str, list[Member]] = {}
    for one in members:
        taken = chosen.setdefault(one.attribute, [])
        if one.seed == members[0].seed and len(taken) < per_condition:
            taken.append(one)
    for one in tqdm([one for taken in chosen.values() for one in taken], desc="controls", unit="adapter"):
        others = [other for other in members if other.attribute == one.attribute and other.dataset != one.dataset]
        if not others:
            continue
        own_scenes = read(out / "data" / one.dataset)[:4]
        base_own = measured(own_scenes)
        for variant, updates in variants(one, others, rank).items():
            with _Changed(model, updates):
                for scenes, before, after in (
                    ("everything", base_new, measured(new_scenes)),
                    ("own", base_own, measured(own_scenes)),
                ):
                    row = {"dataset": one.dataset, "variant": variant, "scenes": scenes, "others": len(others)}
                    rows.append(row | {"base": before, "adapted": after})
    return rows


def variants(one: Member, others: Sequence[Member], rank: int) -> dict[str, dict[str, np.ndarray]]:
    """Return, by variant, module → dense update: of the held-out adapter and of what the others know of it."""
    names = ("mean of the others", "held-out adapter", "projected", "mean + projected rest", "projected on random")
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    rng = np.random.default_rng(0)
    for module, (outputs, inputs) in one.stored.shapes.items():
        own = _dense(one, module)
        mean = np.mean([_dense(other, module) for other in others], axis=0)
        left, _, right = np.linalg.svd(mean, full_matrices=False)
        left, right = left[:, :rank], right[:rank].T
        random_left, random_right = haar_frame(outputs, rank, rng), haar_frame(inputs, rank, rng)
        updates = (
            mean,
            own,
            _projected(own, left, right),
            mean + _projected(own - mean, left, right),
            _projected(own, random_left, random_right),
        )
        for name, update in zip(names, updates, strict=True):
            found[name][module] = update
    return found


def _projected(update: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left @ (left.T @ update @ right) @ right.T


def _dense(one: Member, module: str) -> np.ndarray:
    update = one.stored.update(module)
    return update.left @ update.right.T


class _Changed:
    """The model with updates added to its weights, for the time of a ``with``."""

    def __init__(self, model: VGGT, updates: Mapping[str, np.ndarray]) -> None:
        import torch

        self._weights = {name: model.get_submodule(name).weight for name in updates}
        self._before = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._after = {
            name: self._before[name] + torch.from_numpy(update.astype(np.float32)) for name, update in updates.items()
        }

    def _set(self, values: Mapping[str, Any]) -> None:
        for name, weight in self._weights.items():
            weight.data.copy_(values[name])

    def __enter__(self) -> None:
        self._set(self._after)

    def __exit__(self, *exception: object) -> None:
        self._set(self._before)


def _metrics(numbers: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Return METRICS of one scene."""
    points = numbers["points"]
    chamfer = (points["accuracy_mean"] + points["completeness_mean"]) / 2
    auc = numbers["cameras"]["auc_30"]
    return [numbers["depth"]["scale"]["abs_rel"], chamfer, np.nan if auc is None else auc]


def statistics(data: Path, conditions: Sequence[str]) -> dict[str, Any]:
    """Return what the pictures look like by condition: mean and spread over datasets of what should be constant."""
    result: dict[str, Any] = {}
    for condition in tqdm(conditions, desc="statistics", unit="condition"):
        rows = []
        for folder in sorted(data.glob(f"{condition}_*")):
            frames = []
            sources = DataSettings(sources=(str(folder),), validation_share=0, images_per_step=1)
            for scene in open_sources(sources).train:
                for frame in scene.read_views(range(scene.view_count)):
                    seen = frame.depth_z > 0
                    depth = frame.depth_z[seen].mean() if seen.any() else np.nan
                    bright = frame.rgb[seen].mean() / 255 if seen.any() else np.nan
                    frames.append([seen.mean(), frame.rgb.mean() / 255, bright, depth])
            rows.append(np.nanmean(frames, axis=0))
        spread = np.std(rows, axis=0, ddof=1) if len(rows) > 1 else np.full(4, np.nan)
        pairs = np.stack([np.mean(rows, axis=0), spread], axis=1).tolist()
        result[condition] = dict(zip(CONSTANTS, pairs, strict=True))
    return result
