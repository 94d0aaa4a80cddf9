"""Small random bases for tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from megasynth_train.subspace.basis import Basis, LayerBasis, haar_frame, ranks_of

LAYERS = {
    "aggregator.frame_blocks.0.attn.qkv": ((18, 7), {"texture": 2, "geometry": 3}),
    "aggregator.global_blocks.0.mlp.fc2": ((9, 12), {"geometry": 1}),
    "aggregator.global_blocks.11.attn.proj": ((6, 6), {"texture": 4, "geometry": 1}),
}
EMPTY = "aggregator.frame_blocks.0.mlp.fc1"  # a layer that got no dimensions


def small_basis(
    seed: int = 0,
    *,
    orthonormal: bool = True,
    mean: bool = True,
    layers: Mapping[str, tuple[tuple[int, int], Mapping[str, int]]] = LAYERS,
    attributes: tuple[str, ...] = ("texture", "geometry"),
) -> Basis:
    """Return a basis with layers of different sizes, one of which lacks an attribute."""
    rng = np.random.default_rng(seed)
    made, columns = {}, {}
    for module, ((m, n), widths) in layers.items():
        ends = np.cumsum(list(widths.values())).tolist()
        columns[module] = {name: (end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}
        frames = [ends[-1]] if orthonormal else list(widths.values())
        left, right = (
            np.hstack([haar_frame(size, width, rng) for width in frames]).astype(np.float32) for size in (m, n)
        )
        scales = rng.uniform(0.5, 2.0, ends[-1]).astype(np.float32)
        block = np.zeros((ends[-1], ends[-1]), np.float32)
        for start, end in columns[module].values():
            block[start:end, start:end] = rng.standard_normal((end - start, end - start))
        made[module] = LayerBasis(left, right, scales, block if mean else None)
    record = {"extractor": "irls", "ranks": ranks_of(columns, [EMPTY]), "orthonormal": orthonormal, "version": "0"}
    return Basis(made, columns, attributes, {"size": "vggt-tiny", "weights_sha256": "a" * 64}, record)
