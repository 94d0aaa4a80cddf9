"""All keys of ``python -m megasynth_train.mine``; free of PyTorch, so that the pipeline can check them at once."""

from __future__ import annotations

from dataclasses import dataclass

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import setting

EXTRACTORS = ("irls", "joint", "svd", "hosvd", "grassmann")
ALLOCATIONS = ("uniform", "floor", "proportional", "energy", "null")
CENTRES = ("none", "attribute", "grand")
OF_THE_MEAN = ("irls", "svd")  # extractors of directions of the mean: nothing is left of it by centre=attribute


def can_find(centre: str, extractor: str) -> bool:
    """Return whether ``extractor`` has anything to find once the mean is removed."""
    return centre != "attribute" or extractor not in OF_THE_MEAN


def check_centre(centre: str, extractor: str) -> None:
    """Raise ConfigError if ``extractor`` has nothing to find once the mean is removed."""
    if not can_find(centre, extractor):
        others = ", ".join(name for name in EXTRACTORS if can_find(centre, name))
        raise ConfigError(
            f"mining.centre=attribute: the updates that are left have the mean 0, and extractor={extractor} looks for "
            f"the directions of their mean; choose extractor= one of {others}"
        )


@dataclass(frozen=True)
class MiningSettings:
    """How bases are mined from a cluster; each of these affects the result."""

    attributes: tuple[str, ...] = setting(
        (), "attributes to mine, in this order; empty: all of the cluster", short="attributes"
    )
    modules: str = setting(
        "", "regular expression of layers to mine; empty: all adapted linears of the aggregator", short="modules"
    )
    dimension: int = setting(
        16, "dimensions per attribute and layer (fewer if a layer has less room)", minimum=1, short="dimension"
    )
    extractor: str = setting("irls", "extractor that makes the basis", options=EXTRACTORS, short="extractor")
    all_extractors: bool = setting(True, "also run the other extractors, for the report")
    power: float = setting(
        1.0, "irls, joint: power α of the residuals in the objective; 2: least squares", minimum=1e-3, maximum=2
    )
    epsilon: float = setting(
        1e-3, "irls, joint: smoothing of residuals, relative to the median norm of the updates", minimum=0
    )
    tolerance: float = setting(
        1e-10, "irls, joint: stop when the objective falls by less than this, relatively", minimum=0
    )
    report_tolerance: float = setting(
        1e-6, "the same for what only the report needs: extractors that make no basis, random halves", minimum=0
    )
    max_iterations: int = setting(100, "irls, joint: most iterations", minimum=1)
    centre: str = setting(
        "none",
        "mean removed from every update before bases are mined: none, its attribute's, or the grand mean of all",
        options=CENTRES,
        added=True,
    )
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
        "proportional, energy: what is kept equal in sum to that of uniform: dimensions, or parameters of M",
        options=["dimensions", "parameters"],
    )
    orthonormalise: bool = setting(True, "make the columns of the concatenated basis orthonormal (QR)")
    drop_below: float = setting(
        1e-6,
        "concatenation: drop directions with a smaller share outside the span of earlier ones",
        minimum=0,
        maximum=1,
    )
    null_draws: int = setting(20, "random rotations of the null spectrum", minimum=2)
    null_quantile: float = setting(0.95, "quantile of the null spectrum", minimum=0.5, maximum=0.999)
    splits: int = setting(
        2, "random splits of each attribute's adapters into halves, mined and compared; 0: none", minimum=0
    )
    held_out: int = setting(
        1,
        "how often each adapter and each dataset is left out, in some layer of each kind, to test bases; 0: none",
        minimum=0,
        added=True,
    )
    report_layers: int = setting(
        4,
        "layers of each kind, spread over the depth, in which the other extractors and halves are mined; 0: all",
        minimum=0,
        added=True,
    )
    seed: int = setting(0, "seed of rotations and halves", minimum=0, short="seed")


@dataclass(frozen=True)
class MineRunSettings:
    """How mining runs; none of these changes a result."""

    workers: int = setting(0, "processes; 0: one per core", minimum=0, short="workers")
    figures: bool = setting(True, "draw figures and the report (extra [report])")
    progress: bool = setting(True, "progress bar")
