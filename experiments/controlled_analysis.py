"""What the adapters of the controlled experiment have in common: the numbers behind its tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.ranges import Uniform
from megasynth_train.data.batch import load_step
from megasynth_train.data.device import prepare
from megasynth_train.data.plan import Sampling
from megasynth_train.data.scene import TrainingScene
from megasynth_train.data.sources import open_sources
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
from megasynth_train.training.losses import losses
from megasynth_train.training.normalisation import Target
from megasynth_train.training.run_folder import ADAPTER, DONE
from megasynth_train.training.settings import DataSettings, LossSettings, ModelSettings
from megasynth_train.vggt.model import VGGT

ATTRIBUTES = ("texture", "geometry", "camera", "lighting")  # without the two controls
MEASURES = ("out", "inner", "coherence")
CONSTANTS = ("foreground", "brightness", "brightness of the foreground", "depth of the foreground")
BASES = (
    "same dataset, other seeds",
    "same attribute, other datasets",
    "the same, mean removed",
    "other attributes",
    "random",
)
METRICS = ("objective", "camera", "depth_regression")  # losses of training
BATCHES = 6  # of every dataset on which losses are measured
READING = DataSettings(width_px=98, validation_share=0, views=Uniform(1, 1), images_per_step=1)


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
    result["energy differences"] = energy_differences(energies, datasets)
    return result


def components(
    matrix: np.ndarray, attributes: Sequence[str], datasets: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return the components of variance of all conditions, of the four attributes, and of each condition's own part."""
    result = {}
    if not set(attributes) <= set(ATTRIBUTES):
        result["six conditions"] = asdict(variance_components(matrix, attributes, datasets, seeds))
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
    if len(names) == len(four):
        del groups["six conditions"]
    else:
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


def energy_differences(layers: Sequence[Mapping[str, Shares]], datasets: Sequence[str]) -> dict[str, list[float]]:
    """Return by side how much more the basis of the same attribute holds than that of others: mean, standard error.

    The mean over layers and seeds is one number per dataset; the error is that of their mean.
    """
    found = {}
    for side in ("out", "inner"):
        rows = np.mean([vars(layer[BASES[1]])[side] - vars(layer[BASES[3]])[side] for layer in layers], axis=0)
        values = np.array([rows[np.asarray(datasets) == name].mean() for name in dict.fromkeys(datasets)])
        values = values[np.isfinite(values)]
        found[side] = [float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))]
    return found


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def functional_controls(
    members: Sequence[Member], out: Path, checkpoint: str, per_condition: int, rank: int
) -> list[dict[str, Any]]:
    """Return what adapters do to the losses, without any tuning: one row per held-out adapter, scenes and variant.

    Of each condition the first seed's adapters of the first ``per_condition`` datasets are held out. The others are
    those of the condition's other datasets, all seeds. The bases have ``rank`` dimensions per side and layer.
    """
    model = base_model(ModelSettings(size="vggt-tiny", checkpoint=checkpoint), []).eval()
    new_scenes = _batches(out / "held_out" / "everything_00")
    rows: list[dict[str, Any]] = []
    chosen: dict[str, list[Member]] = {}
    for one in members:
        taken = chosen.setdefault(one.attribute, [])
        if one.seed == members[0].seed and len(taken) < per_condition:
            taken.append(one)
    for one in tqdm([one for taken in chosen.values() for one in taken], desc="controls", unit="adapter"):
        same_kind, another_kind = _others(one, members)
        if not (same_kind and another_kind):
            continue
        of_scenes = {"new": new_scenes, "own": _batches(out / "data" / one.dataset)}
        base = {scenes: _losses(model, batches) for scenes, batches in of_scenes.items()}
        for variant, updates in variants(one, same_kind, another_kind, rank).items():
            with _changed(model, updates):
                for scenes, batches in of_scenes.items():
                    row = {"dataset": one.dataset, "variant": variant, "scenes": scenes, "others": len(same_kind)}
                    rows.append(row | {"base": base[scenes], "adapted": _losses(model, batches)})
    return rows


def _others(one: Member, members: Sequence[Member]) -> tuple[list[Member], ...]:
    """Return the adapters of the same condition's other datasets, and those of the next condition's, other numbers."""
    names = sorted({member.attribute for member in members})
    following = names[(names.index(one.attribute) + 1) % len(names)]
    number = one.dataset.rpartition("_")[2]
    elsewhere = [member for member in members if member.dataset.rpartition("_")[2] != number]
    return tuple([member for member in elsewhere if member.attribute == kind] for kind in (one.attribute, following))


def variants(
    one: Member, same_kind: Sequence[Member], another_kind: Sequence[Member], rank: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return, by variant, module → dense update: of the held-out adapter and of what the others know of it."""
    found: dict[str, dict[str, np.ndarray]] = {}
    rng = np.random.default_rng(0)
    for module, (outputs, inputs) in one.stored.shapes.items():
        own = _dense(one, module)
        mean = _mean_update(same_kind, module)
        left, right = _leading(mean, rank)
        left_elsewhere, _ = _leading(_mean_update(another_kind, module), rank)
        random_left, random_right = haar_frame(outputs, rank, rng), haar_frame(inputs, rank, rng)
        updates = {
            "the held-out adapter": own,
            "mean of the others": mean,
            "on the others' basis, both sides": _projected(own, left, right),
            "on the others' basis, outputs": left @ (left.T @ own),
            "on another condition's basis, outputs": left_elsewhere @ (left_elsewhere.T @ own),
            "mean + rest on the others' basis": mean + _projected(own - mean, left, right),
            "on a random basis, both sides": _projected(own, random_left, random_right),
            "on a random basis, outputs": random_left @ (random_left.T @ own),
        }
        for name, update in updates.items():
            found.setdefault(name, {})[module] = update
    return found


def _mean_update(members: Sequence[Member], module: str) -> np.ndarray:
    return np.asarray(np.mean([_dense(member, module) for member in members], axis=0))


def _leading(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank], right[:rank].T


def _projected(update: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left @ (left.T @ update @ right) @ right.T


def _dense(one: Member, module: str) -> np.ndarray:
    update = one.stored.update(module)
    return update.left @ update.right.T


@contextmanager
def _changed(model: VGGT, updates: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Add the updates to the model's weights, for the time of a ``with``."""
    weights = {name: model.get_submodule(name).weight.data for name in updates}
    before = {name: weight.clone() for name, weight in weights.items()}
    for name, weight in weights.items():
        weight += torch.from_numpy(updates[name].astype(np.float32))
    try:
        yield
    finally:
        for name, weight in weights.items():
            weight.copy_(before[name])


def _batches(folder: Path) -> list[Target]:
    """Return the same batches of a dataset's scenes every time, without augmentation."""
    settings = replace(READING, sources=(str(folder),), views=Uniform(2, 4), images_per_step=8, view_order="path")
    sampling = Sampling(open_sources(settings).train, settings, seed=0, training=False)
    return [prepare(load_step(sampling, step), "cpu", settings) for step in range(BATCHES)]


@torch.inference_mode()
def _losses(model: VGGT, batches: Sequence[Target]) -> list[float]:
    """Return METRICS, means over the batches."""
    rows = []
    for batch in batches:
        found = dict(losses(model(batch.images), batch, LossSettings(quantile=1)).items())
        rows.append([float(found[name]) for name in METRICS])
    return np.mean(rows, axis=0).tolist()


def scenes_of(folder: Path) -> Sequence[TrainingScene]:
    """Return the scenes of a dataset."""
    return open_sources(replace(READING, sources=(str(folder),))).train


def statistics(data: Path, conditions: Sequence[str]) -> dict[str, Any]:
    """Return what the pictures look like by condition: mean and spread over datasets of what should be constant."""
    result: dict[str, Any] = {}
    for condition in tqdm(conditions, desc="statistics", unit="condition"):
        rows = []
        for folder in sorted(data.glob(f"{condition}_*")):
            frames = []
            for scene in scenes_of(folder):
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
