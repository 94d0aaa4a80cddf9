"""Made-up analyses with known contents: random subspaces where nothing is shared, planted angles where something is."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from megasynth_train.subspace.analysis import (
    FORMAT,
    AdapterRow,
    Analysis,
    ConcatenationRow,
    DriftRow,
    ExtractorRow,
    HeldOutRow,
    LayerKey,
    LayerRow,
    PairRow,
    SplitRow,
)

EXTRACTORS = ("irls", "joint", "svd", "hosvd", "grassmann")
SHAPES = {"qkv": (3, 1), "proj": (1, 1), "fc1": (4, 1), "fc2": (1, 4)}  # outputs, inputs in widths


def random_cosines(rng: np.random.Generator, size: int, first: int, second: int) -> np.ndarray:
    """Cosines of the principal angles of two random subspaces of R^size, from the dense definition."""
    frames = [np.linalg.qr(rng.standard_normal((size, d)))[0] for d in (first, second)]
    return np.clip(np.linalg.svd(frames[0].T @ frames[1], compute_uv=False), 0, 1)


def angles(rng: np.random.Generator, size: int, dimensions: tuple[int, int], shared: float) -> tuple[float, ...]:
    """Degrees, ascending; ``shared`` is the share of directions in common (0: none but by chance)."""
    cosines = random_cosines(rng, size, *dimensions) if min(dimensions) else np.zeros(0)
    count = round(shared * len(cosines))
    cosines[:count] = np.maximum(cosines[:count], np.sort(rng.uniform(0.9, 0.999, count))[::-1])
    return tuple(np.degrees(np.arccos(np.sort(cosines)[::-1])).tolist())


class Maker:
    """Builds the rows of one analysis from one generator."""

    def __init__(self, rng, width, attributes, adapters, rank, dimension, shared, within):
        self.rng, self.width, self.attributes, self.k = rng, width, attributes, adapters
        self.rank, self.dimension, self.shared, self.within = rank, dimension, shared, within

    def sizes(self, layer):
        outputs, inputs = SHAPES.get(layer.kind, (1, 1))
        return outputs * self.width, inputs * self.width

    def layer(self, layer, attribute):
        outputs, inputs = self.sizes(layer)
        count = min(self.k * self.rank, outputs, inputs)
        index = np.arange(count)
        base = 0.02 * np.exp(-1.5 * index / count) * (1 + layer.depth / 24)
        planted = self.rng.integers(2, 9) if self.within else 0
        spectrum = np.sort(base * np.where(index < planted, 3.0, 0.97) * self.rng.uniform(0.97, 1.0, count))[::-1]
        significant = int(np.argmin(np.append(spectrum > 1.05 * base, False)))
        norms = self.rng.uniform(0.8, 1.2, self.k)
        coherence = np.full((self.k, self.k), self.within) + self.rng.normal(0, 0.03, (self.k, self.k))
        coherence = (coherence + coherence.T) / 2
        np.fill_diagonal(coherence, 1.0)
        dimension = min(self.dimension, count)
        return LayerRow(
            layer, attribute, outputs, inputs, tuple(norms.tolist()), tuple(map(tuple, coherence.tolist())),
            tuple(spectrum.tolist()), tuple(base.tolist()), tuple((1.05 * base).tolist()), significant,
            float((spectrum**2).sum() / spectrum[0] ** 2), dimension,
            tuple(self.extractor(name, dimension, count, spectrum) for name in EXTRACTORS),
            significant_reweighted=significant + 1, significant_normalised=significant,
        )  # fmt: skip

    def extractor(self, name, dimension, count, spectrum):
        weights = self.rng.dirichlet(np.full(self.k, 30.0))
        inside = np.clip(dimension / count + self.within * 0.4 + self.rng.normal(0, 0.03, self.k), 0, 1)
        inside = np.minimum(1.0, inside + 0.05 * (name == "joint"))
        residuals = np.sqrt(1 - inside)
        return ExtractorRow(
            name, tuple(weights.tolist()), tuple(residuals.tolist()), tuple(inside.tolist()),
            tuple(spectrum[:dimension].tolist()), 12, True, float(residuals.sum()),
        )  # fmt: skip

    def pair(self, layer, first, second):
        outputs, inputs = self.sizes(layer)
        room = min(self.k * self.rank, outputs, inputs)
        d = min(self.dimension, room)
        energy = d * d / (outputs * inputs)
        return PairRow(
            layer, first, second, outputs, inputs,
            angles(self.rng, outputs, (d, d), self.shared), angles(self.rng, inputs, (d, d), self.shared),
            float(energy * self.rng.uniform(0.8, 1.25) + 0.1 * self.shared),
            float(energy * self.rng.uniform(0.8, 1.25) + 0.1 * self.shared),
            coherence=float(0.1 * self.shared + self.rng.normal(0, 0.01)),
        )  # fmt: skip

    def held_out(self, layer, attribute):
        outputs, inputs = self.sizes(layer)
        chances = self.dimension / outputs, self.dimension / inputs
        shares = {"adapter": self.within, "dataset": 0.8 * self.within, "around": 0.8 * self.within,
                  "seeds": 1.5 * self.within, "others": 0.5 * self.within}  # fmt: skip
        return [
            HeldOutRow(layer, attribute, basis, *(c + share * self.rng.uniform(0.8, 1) for c in chances), *chances, 2)
            for basis, share in shares.items()
        ]

    def split(self, layer, number, first, second):
        outputs, inputs = self.sizes(layer)
        d = min(self.dimension, (self.k // 2) * self.rank, outputs, inputs)
        shared = 0.5 * self.within if first == second else self.shared
        return SplitRow(
            layer, number, first, second, angles(self.rng, outputs, (d, d), shared),
            angles(self.rng, inputs, (d, d), shared),
        )  # fmt: skip


def make_analysis(
    attributes=("texture", "geometry", "lighting", "camera"), *, depth=24, width=1024, adapters=10, rank=16,
    dimension=16, shared=0.0, within=0.3, splits=2, drift=True, kinds=tuple(SHAPES), seed=0, notes=(),
):  # fmt: skip
    """An analysis; ``within``: coherence of an attribute's adapters, ``shared``: directions two attributes share."""
    rng = np.random.default_rng(seed)
    make = Maker(rng, width, attributes, adapters, rank, dimension, shared, within)
    layers = [
        LayerKey(f"{a}_blocks.{d}.{'attn' if k in ('qkv', 'proj') else 'mlp'}.{k}", a, k, d)
        for a in ("frame", "global") for d in range(depth) for k in kinds
    ]  # fmt: skip
    pairs = list(combinations(attributes, 2))
    rows = [AdapterRow(f"{a}_{i:02d}", a, f"{a}_{i:02d}", "lora", rank, i, "0" * 64)
            for a in attributes for i in range(adapters)]  # fmt: skip
    halves = [(a, a) for a in attributes] + pairs if adapters > 1 else []
    drifts = [
        DriftRow(layer, row.name, float(rng.uniform(0.05, 0.15) * (1 + layer.depth / depth)), float(rng.uniform(4, 20)))
        for layer in layers for row in rows[:: max(1, adapters // 2)] if drift
    ]  # fmt: skip
    return Analysis(
        FORMAT, tuple(attributes), tuple(rows), {"size": "vggt-1b", "weights_sha256": "ab" * 32},
        {"dimension": dimension, "extractor": "irls", "null_quantile": 0.95, "null_draws": 20, "splits": splits,
         "seed": seed, "allocation": "uniform"},
        tuple(make.layer(layer, a) for layer in layers for a in attributes),
        tuple(make.pair(layer, *pair) for layer in layers for pair in pairs),
        tuple(make.split(layer, s, *pair) for layer in layers for s in range(splits) for pair in halves),
        tuple(drifts),
        tuple(ConcatenationRow(layer, dimension * len(attributes), 0, 0.5, 0.4) for layer in layers),
        61.5, {"numpy": np.__version__}, tuple(notes),
        tuple(row for layer in layers for a in attributes for row in make.held_out(layer, a) if adapters > 1),
    )  # fmt: skip


def tiny(**changes):
    """Two attributes, two depths, width 48: a fraction of a second."""
    return make_analysis(
        **{"attributes": ("texture", "geometry"), "depth": 2, "width": 48, "adapters": 3, "rank": 4, "dimension": 4}
        | changes
    )
