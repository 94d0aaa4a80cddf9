"""Small real comparisons for the tests: ray-cast datasets, settings that take a second per run, a basis."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "dataset"))  # the generator's ray-cast test datasets

import synthetic

from megasynth_attr.core.command.program import parse
from megasynth_attr.dataset.writer import finalise, open_for_writing
from megasynth_train.compare import __main__ as program
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.subspace.basis import Basis, LayerBasis, haar_frame
from megasynth_train.subspace.basis_file import write_basis
from megasynth_train.subspace.join import concatenate_bases
from megasynth_train.training.base_model import base_model
from megasynth_train.training.settings import ModelSettings
from megasynth_train.vggt.checkpoint import weights_hash

WORDS = (
    "model=vggt-tiny", "rank=2", "adapter.head_rank=2", "steps=2", "lr=1e-3", "optim.warmup=0", "workers=0",
    "device=cpu", "run.progress=false", "run.threads=1", "run.log_every=1",
    "data.width_px=28", "data.aspect=0.5", "data.views=2", "data.images_per_step=2", "data.validation_share=0",
    "test.width_px=28", "test.views=2", "test.max_points=150", "test.pictures=false", "test.page=false",
    "test.icp_distance=1",
)  # fmt: skip


def write_experiment(out: Path) -> Path:
    """Write texture_00 and texture_01, of two scenes × 3 views each."""
    settings = synthetic.config("dataset_count=2", "scene_count=2", "frames=3")
    for index in range(2):
        folder = open_for_writing(settings, out, index)
        for scene in range(2):
            synthetic.write_scene(settings, folder, replace(synthetic.scene(settings, scene), dataset_index=index))
        finalise(folder, synthetic.MATERIALS)
    return out


def words(experiment: Path, out: Path, *more: str) -> list[str]:
    """Return the command line of a fast comparison; ``more`` comes last and wins."""
    given = (f"data={experiment / 'texture_00'}", f"test={experiment / 'texture_01'}", f"out={out}", *WORDS, *more)
    return list({word.partition("=")[0]: word for word in given}.values())


def write_mining(folder: Path, order: Sequence[str], dimension: int = 2, orthonormalise: bool = True) -> None:
    """Write a folder of bases as megasynth_train.mine leaves it: an attribute is the same wherever it is in ``order``.

    Attributes overlap: each has half a direction in common with all others.
    """
    model = base_model(ModelSettings(size="vggt-tiny"), [])
    base = {"size": "vggt-tiny", "weights_sha256": weights_hash(model)}
    own = []
    for name in order:
        layers = {}
        for module, shape in linears(model).items():
            sides = []
            for side, size in enumerate(shape):
                shared = np.random.default_rng([side, size]).standard_normal((size, dimension))
                rng = np.random.default_rng([side, *module.encode(), *name.encode()])
                sides.append(np.linalg.qr(shared + rng.standard_normal((size, dimension)))[0].astype(np.float32))
            layers[module] = LayerBasis(*sides, np.ones(dimension, np.float32), np.eye(dimension, dtype=np.float32))
        columns = {module: {name: (0, dimension)} for module in layers}
        record = {"orthonormal": True, "settings": {"drop_below": 1e-6, "orthonormalise": orthonormalise}}
        own.append(Basis(layers, columns, (name,), base, record))
        write_basis(folder / f"{name}.safetensors", own[-1])
    write_basis(folder / "all.safetensors", concatenate_bases(own, orthonormalise, 1e-6))


def linears(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the aggregator's linears with their (outputs, inputs)."""
    found = {}
    for name, parameter in model.named_parameters():
        module, _, kind = name.rpartition(".")
        if "_blocks." in name and kind == "weight" and module.endswith(("qkv", "proj", "fc1", "fc2")):
            found[module] = tuple(parameter.shape)
    return found


def settings(experiment: Path, out: Path, *more: str) -> CompareSettings:
    return parse(CompareSettings, words(experiment, out, *more), program.HELP)


def write_tiny_basis(path: Path, base_sha256: str = "", seed: int = 5) -> Basis:
    """Write a basis with two attributes of two dimensions in every aggregator linear of the tiny model."""
    model = base_model(ModelSettings(size="vggt-tiny"), [])
    rng, layers, columns = np.random.default_rng(seed), {}, {}
    for module, shape in linears(model).items():
        left, right = (haar_frame(size, 4, rng).astype(np.float32) for size in shape)
        layers[module] = LayerBasis(left, right, np.ones(4, np.float32), np.eye(4, dtype=np.float32))
        columns[module] = {"texture": (0, 2), "geometry": (2, 4)}
    base = {"size": "vggt-tiny", "weights_sha256": base_sha256 or weights_hash(model)}
    basis = Basis(layers, columns, ("texture", "geometry"), base, {"extractor": "irls", "orthonormal": True})
    write_basis(path, basis)
    return basis
