"""Models that are not trained: the base model plus what the adapters of the cluster, or a basis of them, say it needs.

They change only the layers that were mined, so that bases and adapters are compared on equal terms; ``held-out-whole``
alone has everything that an adapter trained. With dW of an adapter that is left out, A, B the orthonormal basis of all
others, mined without it, and D the mean of the other adapters of its attribute:

======================================  ==============================
held-out, held-out-mean                 dW; D
held-out-projected                      A Aᵀ dW B Bᵀ
held-out-projected-mean                 D + A Aᵀ (dW − D) B Bᵀ
held-out-random, held-out-random-mean   the same with random A, B of equal size
======================================  ==============================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from tqdm import tqdm

from megasynth_attr.core.codec import from_plain, to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import read_json
from megasynth_attr.core.pages.words import listed
from megasynth_attr.core.temporary import TMP, working_folder
from megasynth_train.adapters.plain import PREFIX, plain_config, write_config
from megasynth_train.adapters.stock import BASE_HASH
from megasynth_train.adapters.storage import PEFT_METADATA, WEIGHTS
from megasynth_train.adapters.targets import exact_pattern
from megasynth_train.compare.bases import Bases
from megasynth_train.compare.methods import HELD_OUT, MEAN, TIES
from megasynth_train.subspace.analysis import FILE as ANALYSIS
from megasynth_train.subspace.analysis import FORMAT as ANALYSIS_FORMAT
from megasynth_train.subspace.basis import haar_frame
from megasynth_train.subspace.core import Update, core_coordinates
from megasynth_train.subspace.evidence import Turn
from megasynth_train.subspace.mine_layer import WHOLE, LayerTask, mine_layer
from megasynth_train.subspace.mining import updates_by_attribute
from megasynth_train.subspace.peft_updates import StoredAdapter
from megasynth_train.subspace.settings import MiningSettings
from megasynth_train.subspace.spectrum import FrameBank
from megasynth_train.subspace.updates import ADAPTER, Cluster, open_cluster
from megasynth_train.vggt.weight_files import write_tensors

TIES_DENSITY = 0.2  # share of the entries of each update that is kept, as in the TIES paper
NEGLIGIBLE = 1e-7  # relative to the largest singular value of a mean: below float32
WITHOUT = "leave controls, mean, merge-ties and held-out out of methods="
Sides = tuple[np.ndarray, np.ndarray]  # A (m × D) and B (n × D), orthonormal


@dataclass(frozen=True, eq=False)
class Origin:
    """The adapters from which ``bases`` were mined; ``left_out``: how many of each attribute are, each in turn."""

    bases: Bases
    left_out: int

    @cached_property
    def cluster(self) -> Cluster:
        """Return the cluster; ConfigError or DatasetError if it is not there, was changed, or cannot be used."""
        folder = self.bases.folder
        if folder is None:
            raise ConfigError(
                f"basis={self.bases.file} is a single file; the controls mine the basis again without an adapter: give "
                f"the folder of megasynth_train.mine as basis=, or {WITHOUT}"
            )
        rows = read_json(folder / ANALYSIS, ANALYSIS_FORMAT)["adapters"]
        if any(row["mode"] == "dora" for row in rows):
            raise ConfigError(
                f"basis={folder} was mined from DoRA adapters, whose change of magnitudes no control holds"
            )
        homes = _homes(rows)
        where = listed([str(home) for home in homes])
        try:
            cluster = open_cluster(homes, [row["attribute"] for row in rows], self.mining.modules)
        except (ConfigError, DatasetError) as error:
            raise DatasetError(
                f"the adapters from which {folder} was mined cannot be read in {where}: {error}; controls need "
                f"them: put them back, mine again where they are now, or {WITHOUT}"
            ) from None
        expected, found = (
            {row["name"]: row["sha256"] for row in rows},
            {one.name: one.sha256 for one in cluster.stored},
        )
        if expected != found:
            raise DatasetError(
                f"{where} no longer holds the adapters from which {folder} was mined; mine again, or {WITHOUT}"
            )
        return cluster

    @cached_property
    def mining(self) -> MiningSettings:
        """Return how the bases were mined."""
        recorded = to_plain(MiningSettings()) | self.bases.whole.record["settings"]
        return from_plain(MiningSettings, recorded, str(self.bases.file))

    def made_of(self, method: str) -> dict[str, Any]:
        """Return what decides a control: the adapters (name → SHA-256), and which are left out, each in turn.

        ConfigError if an attribute has too few adapters of different data.
        """
        used = {one.name: one.sha256 for one in self._stored(method)}
        return {"adapters": used, **({"left_out": self._members()} if method in HELD_OUT else {})}

    def _stored(self, method: str) -> list[StoredAdapter]:
        """Return the adapters that a control uses."""
        chosen = method.removeprefix(f"{MEAN}-").split("+") if method.startswith(f"{MEAN}-") else ()
        return [one for one in self.cluster.stored if not chosen or one.attribute in chosen]

    def _members(self) -> list[str]:
        """Return the adapters to leave out: of each attribute the first that change something, on different data."""
        found = []
        for attribute in self.cluster.attributes:
            names = [name for name in self.cluster.of_attribute(attribute) if name not in self.cluster.idle]
            usable = [name for name in names if self.others(name)]
            if not usable:
                raise ConfigError(
                    f"methods=held-out: all adapters of {attribute} were trained on the same data, so none can be left "
                    "out; train the cluster on at least two datasets of each attribute"
                )
            firsts: dict[str, str] = {}  # other seeds of their data, which tell little more, come after these
            for name in usable:
                firsts.setdefault(self._data[name], name)
            seeds = (name for name in usable if name not in firsts.values())
            found += [*firsts.values(), *seeds][: self.left_out]
        return found

    def others(self, name: str) -> list[str]:
        """Return the adapters of the same attribute that were trained on other data."""
        own = next(one for one in self.cluster.stored if one.name == name)
        return [other for other in self.cluster.of_attribute(own.attribute) if self._data[other] != self._data[name]]

    @cached_property
    def _data(self) -> dict[str, str]:
        """Return the dataset of each adapter."""
        return {
            name: dataset
            for attribute in self.cluster.attributes
            for name, dataset in zip(
                self.cluster.of_attribute(attribute), self.cluster.datasets(attribute), strict=True
            )
        }

    @contextmanager
    def adapter(self, method: str, member: str, out: Path, progress: bool) -> Iterator[str]:
        """Yield the folder of a control's adapter, which is removed at the end; works in ``<out>/tmp``.

        It is a plain LoRA adapter of any rank; ``held-out-whole`` is the adapter itself. ``member``: the one left out.
        """
        if method == "held-out-whole":
            yield str(next(one.folder for one in self.cluster.stored if one.name == member))
            return
        make = self._maker(method, member)
        modules = tqdm(self.cluster.modules, desc=method, unit="layer", disable=not progress)
        base_sha256 = str(self.bases.whole.base.get("weights_sha256", ""))
        with working_folder(out / TMP, "control") as folder:
            write_updates(folder, {module: make(module) for module in modules}, base_sha256)
            yield str(folder)

    def _maker(self, method: str, member: str) -> Callable[[str], Update]:
        """Return what makes a layer's update."""
        if method not in HELD_OUT:
            used = {one.name for one in self._stored(method)}
            combine = ties if method == TIES else mean_update
            return lambda module: combine(
                [update for name, update in self.cluster.updates(module).items() if name in used]
            )
        part, others = HELD_OUT[method], self.others(member)

        def made(module: str) -> Update:
            updates = self.cluster.updates(module)
            own = updates[member]
            if not part:
                return own
            mean = mean_update([updates[name] for name in others])
            if part == "mean":
                return mean
            sides = self.basis_without(member)[module]
            if part.startswith("random"):
                rng = np.random.default_rng([*member.encode(), *module.encode()])
                first, second = (haar_frame(len(side), side.shape[1], rng) for side in sides)
                sides = first, second
            if not part.endswith("mean"):
                return projected(own, sides)
            rest = projected(Update(np.hstack([own.left, -mean.left]), np.hstack([own.right, mean.right])), sides)
            return Update(np.hstack([mean.left, rest.left]), np.hstack([mean.right, rest.right]))

        return made

    @lru_cache(maxsize=1)  # noqa: B019 (an origin lives as long as the program)
    def basis_without(self, member: str) -> dict[str, Sides]:
        """Return the basis of all attributes, module by module, mined without an adapter and others on its data."""
        # what only the report needs is left out
        settings = replace(self.mining, all_extractors=False, null_draws=2, held_out=0)
        others, frames, found = self.others(member), FrameBank(settings.null_draws, settings.seed), {}
        own = next(one.attribute for one in self.cluster.stored if one.name == member)
        for module in self.cluster.modules:
            updates = updates_by_attribute(self.cluster, module)
            names = self.cluster.of_attribute(own)
            updates[own] = [update for name, update in zip(names, updates[own], strict=True) if name in others]
            ranks = self.bases.whole.record["ranks"].get(module, {})
            dimensions = {name: int(ranks.get(name, 0)) for name in updates}
            task = LayerTask(settings, dimensions, halves={}, datasets={}, turn=Turn(rounds=0))
            whole = mine_layer(module, updates, task, frames).bases.get(WHOLE)
            layer = self.cluster.shapes[module]
            sides = (whole.left, whole.right) if whole else (np.zeros((layer[0], 0)), np.zeros((layer[1], 0)))
            found[module] = np.linalg.qr(sides[0].astype(np.float64))[0], np.linalg.qr(sides[1].astype(np.float64))[0]
        return found


def _homes(rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Return the folders of clusters that an analysis' adapters are in, in the order that is in their names."""
    found = {}
    for row in rows:
        folder = Path(row["folder"])
        own = folder.parent if folder.name == ADAPTER else folder
        found[int(row["name"].removeprefix(own.name) or 0)] = own.parent
    return [found[number] for number in sorted(found)]


def projected(update: Update, sides: Sides) -> Update:
    """Return A Aᵀ dW B Bᵀ."""
    left, right = sides
    return Update(left @ ((left.T @ update.left) @ (update.right.T @ right)), right)


def mean_update(updates: Sequence[Update]) -> Update:
    """Return the mean of the dW_i, of the smallest rank that holds it to float32."""
    core = core_coordinates(updates)
    left, values, right = np.linalg.svd(core.cores.mean(axis=0), full_matrices=False)
    kept = max(1, int((values > NEGLIGIBLE * values[0]).sum()))
    return Update(core.left @ (left[:, :kept] * values[:kept]), core.right @ right[:kept].T)


def ties(updates: Sequence[Update]) -> Update:
    """Return the dW_i merged by TIES as PEFT combines adapters: each loses its small entries, and what disagrees with
    the majority in sign counts for nothing.

    PEFT's ``ties`` would merge the two factors one by one, and so depend on how dW is divided between them; its
    ``ties_svd`` merges the dW. Its rank is at most that of the mean, Σ r_i.
    """
    outputs, inputs = len(updates[0].left), len(updates[0].right)
    first, *others = names = [f"adapter_{index}" for index in range(len(updates))]
    configs = {
        name: LoraConfig(r=update.left.shape[1], lora_alpha=update.left.shape[1], target_modules=["layer"])
        for name, update in zip(names, updates, strict=True)
    }
    model: Any = get_peft_model(nn.ModuleDict({"layer": nn.Linear(inputs, outputs, bias=False)}), configs[first], first)
    for name in others:
        model.add_adapter(name, configs[name])
    layer = model.base_model.model["layer"]
    with torch.no_grad():
        for name, update in zip(names, updates, strict=True):
            layer.lora_A[name].weight.copy_(_float32(update.right.T))
            layer.lora_B[name].weight.copy_(_float32(update.left))
        rank = min(outputs, inputs, sum(update.left.shape[1] for update in updates))
        model.base_model.add_weighted_adapter(
            names,
            [1.0] * len(names),
            "merged",
            "ties_svd",
            svd_rank=rank,
            svd_full_matrices=False,
            density=TIES_DENSITY,
        )
    return Update(layer.lora_B["merged"].weight.double().numpy(), layer.lora_A["merged"].weight.double().numpy().T)


def write_updates(folder: Path, updates: dict[str, Update], base_sha256: str) -> None:
    """Write updates as a plain LoRA adapter of scale 1 for the base model with this hash; those without a rank lack."""
    tensors: dict[str, Tensor] = {}
    for module, update in updates.items():
        if update.left.shape[1]:
            tensors[f"{PREFIX}{module}.lora_A.weight"] = _float32(update.right.T)
            tensors[f"{PREFIX}{module}.lora_B.weight"] = _float32(update.left)
    modules = [module for module, update in updates.items() if update.left.shape[1]]
    config = LoraConfig(r=1, lora_alpha=1, target_modules=exact_pattern(modules))
    write_config(plain_config(config, tensors, modules), folder)
    write_tensors(folder / WEIGHTS, tensors, PEFT_METADATA | {BASE_HASH: base_sha256})


def _float32(array: np.ndarray) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32)
