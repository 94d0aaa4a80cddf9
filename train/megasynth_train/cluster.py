"""``python -m megasynth_train.cluster``: one adapter per dataset of an experiment, all trained alike.

::

    <out>/cluster.json           the manifest, written before anything is trained: datasets, seeds, settings, base model
    <out>/<dataset>/             one run folder per dataset (finetune.py) with its adapter/

Running the same command again continues: finished adapters are skipped, unfinished ones resume. Every adapter has
its own seed, derived from the cluster's seed and the dataset's name; adapters/drift.py says why.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.state import PartialState

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, ExitCode, MegaSynthError
from megasynth_attr.core.pages.words import short, table_text
from megasynth_attr.core.selection import parse_shard, shard_of
from megasynth_attr.core.stop import StopRequest
from megasynth_train import finetune
from megasynth_train.training.at_once import plan, run_all
from megasynth_train.training.cluster_manifest import (
    ClusterSettings,
    check_unchanged,
    drift_summary,
    open_manifest,
    read_manifest,
)
from megasynth_train.training.loop import OnStep
from megasynth_train.training.processes import make_accelerator, on_main, run_program, survived
from megasynth_train.training.run_folder import DONE

HELP = Help(
    usage="python -m megasynth_train.cluster experiment=FOLDER out=FOLDER [key=value ...]",
    explanation=(
        "Trains one adapter per dataset of an experiment: the cluster from which subspaces are mined. Running the\n"
        "same command again continues. To use several GPUs or machines, run the same command on each with its own\n"
        "shard=i/n, in any order. On CPUs several are trained at once (parallel=). A dataset that fails does not stop\n"
        "the others; failures are listed at the end, with exit code 3."
    ),
    examples=(
        "python -m megasynth_train.cluster experiment=runs/full out=runs/loras checkpoint=facebook/VGGT-1B rank=16",
        "python -m megasynth_train.cluster experiment=runs/demo out=runs/demo_loras model=vggt-tiny steps=100 lr=1e-3",
        "CUDA_VISIBLE_DEVICES=2 python -m megasynth_train.cluster experiment=runs/full out=runs/loras shard=3/8",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """The outcome for one dataset: "trained", "done before", or "failed" with a message."""

    name: str
    status: str
    message: str = ""
    objective: float | None = None
    seconds: float = 0.0


class AdaptersFailed(MegaSynthError):
    """Some adapters could not be trained; the others are complete."""

    exit_code = ExitCode.SCENES_FAILED


def run_cluster(settings: ClusterSettings) -> list[Outcome]:
    """Train this shard's adapters and return the outcome of each; ConfigError if ``out`` holds another cluster.

    A dataset that fails is reported in its outcome. Errors that would stop all of them are raised: EnvironmentProblem
    (no GPU, full disk) and Interrupted (signal or max_runtime_s), after which the same command continues.
    """
    _check(settings)
    share = parse_shard(settings.shard)
    out = Path(settings.run.out).resolve()
    with StopRequest(settings.run.max_runtime_s) as stop:
        accelerator = make_accelerator(settings.run.device)
        manifest: dict[str, Any] = on_main(accelerator, lambda: open_manifest(out, settings))
        names = shard_of(sorted(manifest["adapters"]), *share)
        unfinished = sum(not (out / name / DONE).exists() for name in names)
        planned = plan(settings, accelerator, unfinished)
        outcomes: dict[str, Outcome] = {}

        def keep(name: str, outcome: Outcome) -> None:
            outcomes[name] = outcome
            on_main(accelerator, lambda: check_unchanged(out, manifest))

        work = partial(_train_one, out, manifest, planned.each)
        run_all(work, {name: name for name in names}, planned, stop, keep)
    return [outcomes[name] for name in names]


def require_all(outcomes: Sequence[Outcome]) -> None:
    """Raise AdaptersFailed, with every message, if a dataset failed."""
    if failed := [outcome for outcome in outcomes if outcome.status == "failed"]:
        texts = "; ".join(f"{outcome.name}: {outcome.message}" for outcome in failed)
        raise AdaptersFailed(f"{len(failed)} of {len(outcomes)} adapters failed: {texts}")


def summary(outcomes: Sequence[Outcome], out: Path) -> str:
    """Return a table with one line per dataset of the cluster: status, last objective and drift of lora_A."""
    rows = [("dataset", "status", "objective", "change of A", "angle", "seconds")]
    known = {outcome.name: outcome for outcome in outcomes}
    for name in sorted(read_manifest(out)["adapters"]):
        outcome = known.get(name, Outcome(name, "not in this shard"))
        moved = drift_summary(out / name)
        rows.append(
            (
                name,
                outcome.status,
                "" if outcome.objective is None else f"{outcome.objective:.5g}",
                short(moved["median_relative_change"]) if moved else "",
                f"{short(moved['median_largest_angle_deg'])}°" if moved else "",
                f"{outcome.seconds:.0f}" if outcome.seconds else "",
            )
        )
    return table_text(rows)


def _train_one(
    out: Path, manifest: Mapping[str, Any], settings: ClusterSettings, name: str, left_s: float, on_step: OnStep
) -> Outcome:
    entry, common, started = manifest["adapters"][name], settings.training(), time.monotonic()
    run_settings = replace(
        common,
        data=replace(common.data, sources=(str(Path(settings.experiment) / name),)),
        adapter=replace(common.adapter, seed=entry["seed"]),
        run=replace(common.run, out=str(out / name), max_runtime_s=left_s),
    )
    record = {"dataset": name, **entry, "cluster_seed": settings.seed}
    try:
        result = finetune.run(run_settings, record=record, on_step=on_step)
    except Exception as error:
        return Outcome(name, "failed", survived(error, name), seconds=time.monotonic() - started)
    status = "done before" if result.already_done else "trained"
    return Outcome(name, status, objective=result.objective, seconds=time.monotonic() - started)


def _check(settings: ClusterSettings) -> None:
    if not settings.experiment or not settings.run.out:
        key = "out" if settings.experiment else "experiment"
        raise ConfigError(f"{key}= is missing, e.g. experiment=runs/demo out=runs/demo_loras")
    if settings.data.sources:
        raise ConfigError("data= is for a single run; a cluster takes experiment=, and datasets= to choose some of it")
    if settings.adapter.seed:
        raise ConfigError("adapter.seed= is derived for each adapter of a cluster; set the cluster's seed= instead")


def main(words: list[str]) -> None:
    """Train as the command line says and print the table; AdaptersFailed at the end if some failed."""
    settings = parse(ClusterSettings, words, HELP)
    outcomes = run_cluster(settings)
    if PartialState().is_main_process:
        print(summary(outcomes, Path(settings.run.out).resolve()))
    require_all(outcomes)


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
