"""The pipeline's training stages, loaded by the entry point ``training``. Free of PyTorch.

Their code (run.py) is imported when they run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_attr.core.stages import CostLine, Stage, StageGroup, StageRun
from megasynth_train.experiment import checks, cost
from megasynth_train.experiment.settings import (
    CLUSTER,
    COMPARISON,
    PRETRAIN,
    SUBSPACES,
    check_keys,
    help_sections,
)


def _stage(
    name: str,
    meaning: str,
    check: Callable[[StageRun], None],
    price: Callable[[StageRun], list[CostLine]],
    **more: Any,
) -> Stage[StageRun]:
    def run(run: StageRun) -> None:
        from megasynth_train.experiment import run as stages

        getattr(stages, name)(run)

    return Stage(
        name,
        meaning,
        run,
        check=check,
        cost=price,
        ready=lambda _: require_report_libraries(),  # for the chapter; checked before hours of training
        needs=("megasynth_train.experiment.run",),
        install="pip install megasynth-attr[train]",
        **more,
    )


STAGES = StageGroup(
    stages=(
        _stage(
            "pretrain",
            "train the base model on the members' datasets (only if training.pretrain.optim.steps is given)",
            checks.check_pretrain,
            cost.pretrain_cost,
            chapter=PRETRAIN,
        ),
        _stage(
            "cluster",
            "train one adapter for each dataset of the members",
            checks.check_cluster,
            cost.cluster_cost,
            after=("pretrain",),
            chapter=CLUSTER,
            question="Does a network learn from each dataset?",
        ),
        _stage(
            "mine",
            "find and compare the subspaces the attributes' adapters share",
            checks.check_mine,
            cost.mine_cost,
            after=("cluster",),
            chapter=SUBSPACES,
            question="Do adapters of one attribute change the network in the same directions, and those of different "
            "attributes in different ones? Every number stands beside what random directions would give.",
        ),
        _stage(
            "compare",
            "train adapters of many kinds on the downstream data and evaluate them",
            checks.check_compare,
            cost.compare_cost,
            after=("mine",),
            chapter=COMPARISON,
            question="Is it better to adapt within these directions than within random ones, or by other methods?",
        ),
    ),
    sections=help_sections(),
    check_keys=check_keys,
)
