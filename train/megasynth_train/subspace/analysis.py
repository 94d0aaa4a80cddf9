"""What mining a cluster found, as stored in ``analysis.json``: one row per layer and attribute, pair or split.

Angles are principal angles in degrees, smallest first; ``out`` is the side of the layer's outputs (columns of A),
``in`` that of its inputs (columns of B). Norms are Frobenius norms. λ of a pair is 1 − cos θ and 1 + cos θ (angles.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.codec import canonical_json, from_plain, younger
from megasynth_attr.core.files import read_json, storage_errors
from megasynth_attr.core.temporary import replace_atomically

FORMAT = "megasynth-attr subspaces 1"
FILE = "analysis.json"
_BLOCK = re.compile(r"(?:^|.*\.)(frame|global)_blocks\.(\d+)\.(?:.*\.)?([^.]+)")
_NUMBER = re.compile(r"\.(\d+)(?=\.|$)")


@dataclass(frozen=True)
class AdapterRow:
    """One adapter of the cluster."""

    name: str
    attribute: str
    folder: str
    mode: str  # lora, rslora, dora, pissa, adalora, lora_xs, subspace
    rank: int  # the largest rank of any layer
    seed: int | None  # of its initial values; None: not recorded
    sha256: str  # of its configuration and all files its updates come from
    dataset: str = younger("")  # name of the first adapter that was trained on the same data; "": not recorded


@dataclass(frozen=True)
class LayerKey:
    """Where a layer is: ``depth`` counts the blocks of its attention type from 0."""

    module: str
    attention: str  # frame, global, or other
    kind: str  # qkv, proj, fc1, fc2, or the module's last name
    depth: int


def layer_key(module: str) -> LayerKey:
    """Return attention type, kind and depth of ``aggregator.<frame|global>_blocks.<depth>.….<kind>``.

    Any other module has the attention ``other``, the first number in its name as depth (or 0), and its last name.
    """
    if found := _BLOCK.fullmatch(module):
        return LayerKey(module, found[1], found[3], int(found[2]))
    number = _NUMBER.search(module)
    return LayerKey(module, "other", module.rpartition(".")[2], int(number[1]) if number else 0)


@dataclass(frozen=True)
class ExtractorRow:
    """What one extractor found in one layer for one attribute; values per adapter in the attribute's order."""

    extractor: str
    weights: tuple[float, ...]  # sum 1
    residuals: tuple[float, ...]  # ‖dW_i − its best approximation in the basis‖ / ‖dW_i‖; 0 for a zero update
    energy_inside: tuple[float, ...]  # ‖Aᵀ dW_i B‖² / ‖dW_i‖², 0..1; 0 for a zero update
    singular_values: tuple[float, ...]  # d: of the weighted mean C (irls, svd), or √eigenvalues of the output side
    iterations: int
    converged: bool
    objective: float


@dataclass(frozen=True)
class LayerRow:
    """One layer of one attribute."""

    layer: LayerKey
    attribute: str
    outputs: int
    inputs: int
    norms: tuple[float, ...]  # ‖dW_i‖, one per adapter
    coherence: tuple[tuple[float, ...], ...]  # cos_ij = ⟨dW_i, dW_j⟩ / (‖dW_i‖ ‖dW_j‖), k × k
    spectrum: tuple[float, ...]  # singular values of C = mean of the dW_i (first iteration), min(R, outputs, inputs)
    null_median: tuple[float, ...]  # of the same mean after independent Haar rotations, per index
    null_upper: tuple[float, ...]  # MiningSettings.null_quantile of it
    significant: int  # singular values above null_upper[0], the largest of chance
    effective_rank: float  # (‖C‖_F / ‖C‖₂)², or of the base weight (allocate_from)
    dimension: int  # allocated
    extractors: tuple[ExtractorRow, ...]  # the one that makes the basis first
    significant_reweighted: int | None = younger(None)  # the same of the mean with the weights irls ends with
    significant_normalised: int | None = younger(None)  # directions the updates scaled to norm 1 share

    @property
    def mean_coherence(self) -> float | None:
        """Return the mean cosine between different adapters; None where there is one adapter."""
        matrix = np.asarray(self.coherence, dtype=np.float64)
        return float(matrix[~np.eye(len(matrix), dtype=bool)].mean()) if len(matrix) > 1 else None


@dataclass(frozen=True)
class PairRow:
    """Two attributes in one layer: angles between their bases, and the energy of one's updates in the other's basis."""

    layer: LayerKey
    first: str
    second: str
    outputs: int
    inputs: int
    angles_out_deg: tuple[float, ...]  # min(d_first, d_second) of them; empty if one has no dimensions here
    angles_in_deg: tuple[float, ...]
    # mean over first's nonzero updates of ‖A₂ᵀ dW B₂‖² / ‖dW‖²; None: there are none, or second has no dimensions here
    energy_first_in_second: float | None
    energy_second_in_first: float | None
    coherence: float | None = younger(None)  # mean cosine between adapters of first and second; of some of them


@dataclass(frozen=True)
class HeldOutRow:
    """Mean share of an attribute's updates in bases mined without them (held_out.py), by side.

    ``basis``: which one. ``adapter``: that of its other adapters; ``dataset``: of its adapters of other datasets;
    ``around``: of the same, around their mean; ``seeds``: of the adapters of the same dataset; ``others``: those of the
    other attributes.
    """

    layer: LayerKey
    attribute: str
    basis: str
    out: float
    inner: float
    out_chance: float  # of random bases with as many dimensions
    inner_chance: float
    adapters: int  # over how many the means are


@dataclass(frozen=True)
class SplitRow:
    """Bases from half of the adapters: two halves of one attribute (first = second), or halves of two attributes."""

    layer: LayerKey
    split: int
    first: str
    second: str
    angles_out_deg: tuple[float, ...]
    angles_in_deg: tuple[float, ...]


@dataclass(frozen=True)
class DriftRow:
    """How far one adapter's lora_A moved from its start in one layer."""

    layer: LayerKey
    adapter: str
    relative_change: float | None  # None: not finite
    largest_angle_deg: float | None


@dataclass(frozen=True)
class ConcatenationRow:
    """The attributes' columns of one layer side by side."""

    layer: LayerKey
    dimension: int  # D after dropping
    dropped: int
    smallest_singular_out: float  # of the unit columns before orthonormalising; 1: all orthogonal, 0: dependent
    smallest_singular_in: float


@dataclass(frozen=True)
class Analysis:
    """All rows and what they were computed from; ``attributes`` in the order of the basis."""

    format: str
    attributes: tuple[str, ...]
    adapters: tuple[AdapterRow, ...]
    base: dict[str, Any]  # of the model the adapters belong to: size, config, weights_sha256
    settings: dict[str, Any]  # MiningSettings
    layers: tuple[LayerRow, ...]
    pairs: tuple[PairRow, ...]
    splits: tuple[SplitRow, ...]
    drift: tuple[DriftRow, ...]
    concatenation: tuple[ConcatenationRow, ...]
    seconds: float
    versions: dict[str, str]
    notes: tuple[str, ...] = ()
    held_out: tuple[HeldOutRow, ...] = younger(())


def write_analysis(folder: Path, analysis: Analysis) -> Path:
    """Write ``analysis.json`` into ``folder``, whole or not at all, and return its path.

    It is one line: with one value per line, encoding a million numbers takes ten times as long.
    """
    path = folder / FILE
    with storage_errors("the analysis", path):
        replace_atomically(path, canonical_json(analysis).encode())
    return path


def read_analysis(folder: Path) -> Analysis:
    """Return the analysis in a folder of subspaces; DatasetError if it is missing or damaged."""
    path = folder / FILE
    return from_plain(Analysis, read_json(path, FORMAT), str(path))
