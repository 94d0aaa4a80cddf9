"""All keys of ``python -m megasynth_train.mine``; free of PyTorch, so that the pipeline can check them at once."""

from __future__ import annotations

from dataclasses import dataclass

from megasynth_attr.core.fields import setting

EXTRACTORS = ("irls", "joint", "svd", "hosvd", "grassmann")
ALLOCATIONS = ("uniform", "floor", "proportional", "energy", "null")


@dataclass(frozen=True)
class MiningSettings:
    """How bases are mined from a cluster: each of these decides what is found."""

    attributes: tuple[str, ...] = setting(
        (), "attributes to mine, in this order; empty: all of the cluster", short="attributes"
    )
    modules: str = setting(
        "", "regular expression of layers to mine; empty: all adapted linears of the aggregator", short="modules"
    )
    dimension: int = setting(
        16, "dimensions per attribute and layer (a layer with less room gets less)", minimum=1, short="dimension"
    )
    extractor: str = setting("irls", "which extractor makes the basis", options=EXTRACTORS, short="extractor")
    all_extractors: bool = setting(True, "also run the other extractors, for the report")
    power: float = setting(
        1.0, "irls, joint: the residuals' power α in the objective; 2: least squares", minimum=1e-3, maximum=2
    )
    epsilon: float = setting(
        1e-3, "irls, joint: smoothing of residuals, relative to the median norm of the updates", minimum=0
    )
    tolerance: float = setting(1e-10, "irls, joint: relative fall of the objective that ends the search", minimum=0)
    report_tolerance: float = setting(
        1e-6, "the same where only the report needs it: extractors that make no basis, random halves", minimum=0
    )
    max_iterations: int = setting(100, "irls, joint: iterations at most", minimum=1)
    allocation: str = setting(
        "uniform", "how dimensions are shared among layers", options=ALLOCATIONS, short="allocation"
    )
    allocate_from: str = setting(
        "update",
        "floor, proportional: effective rank of the mean update, or of the base weight",
        options=["update", "base"],
    )
    budget: str = setting(
        "dimensions",
        "proportional: what sums to that of uniform: dimensions, or trained numbers of M",
        options=["dimensions", "parameters"],
    )
    orthonormalise: bool = setting(True, "make the columns of the concatenated basis orthonormal (QR)")
    drop_below: float = setting(
        1e-6, "concatenation: drop directions whose part outside the earlier ones is shorter", minimum=0, maximum=1
    )
    null_draws: int = setting(20, "random rotations of the null spectrum", minimum=2)
    null_quantile: float = setting(0.95, "quantile of the null spectrum", minimum=0.5, maximum=0.999)
    splits: int = setting(
        2, "random halves of each attribute's adapters that are mined and compared; 0: none", minimum=0
    )
    seed: int = setting(0, "seed of rotations and halves", minimum=0, short="seed")


@dataclass(frozen=True)
class MineRunSettings:
    """Where it runs; none of these changes a result."""

    workers: int = setting(0, "processes; 0: one per core", minimum=0, short="workers")
    figures: bool = setting(True, "draw figures and the report (extra [report])")
    progress: bool = setting(True, "progress bar")
