"""Rendering on a Slurm cluster: arrays of jobs, each element of which runs this pipeline on one shard.

The jobs need this Python environment and the output folder on a shared file system. Each gets ``workers × threads``
cores (4 if neither is set), and one GPU if ``device`` is not cpu. docs/slurm.md says how it behaves.
"""

from __future__ import annotations

import math
import shutil
import signal
import sys
from pathlib import Path

from megasynth_attr.core.codec import content_hash
from megasynth_attr.core.errors import ConfigError, Detached, EnvironmentProblem, Interrupted
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.farm.claims import Claims
from megasynth_attr.farm.events import EventLog
from megasynth_attr.farm.progress import Progress
from megasynth_attr.farm.slurm_run import SlurmRun
from megasynth_attr.farm.tasks import Plan
from megasynth_attr.scene.config import Experiment
from megasynth_attr.scene.settings import RunSettings

SCENES_PER_JOB = 10
MOST_JOBS = 1000  # unless jobs= asks for more
END_MARGIN_S = 180  # a job stops by itself before Slurm ends it


def check_executor(run: RunSettings) -> None:
    """Raise ConfigError for ``shard=`` with ``executor=slurm``, which makes its own, and ``detach=`` without it."""
    if run.executor == "slurm" and run.shard != "1/1":
        raise ConfigError(f"executor=slurm makes its own shards, one per job; leave out shard={run.shard} or set jobs=")
    if run.detach and run.executor != "slurm":
        raise ConfigError("detach=true: only the jobs of executor=slurm run on by themselves; add that or leave it out")


def require_slurm() -> None:
    """Raise EnvironmentProblem unless jobs can be submitted from this machine."""
    if shutil.which("sbatch") is None:
        raise EnvironmentProblem("executor=slurm: there is no sbatch on this machine; start from a login node")


def render_on_slurm(plan: Plan, progress: Progress, stop: StopRequest, events: EventLog, claims: Claims) -> None:
    """Submit the shards of the plan, or find those of an earlier command in the queue, and wait until all are complete.

    Detached with ``detach=true``. Otherwise nothing stays in the queue, unless whoever pressed Ctrl-C wants that.
    Raises Interrupted if shards stay incomplete, EnvironmentProblem or ConfigError if the jobs say so.
    """
    folder = _folder(plan.experiment)
    if not claims.lock(folder.name):
        raise ConfigError(f"another command waits for the Slurm jobs of {plan.experiment.out}; let it, or end it first")
    progress.elsewhere("asking Slurm", running=False)
    settings = plan.experiment.run
    count = min(settings.jobs or min(math.ceil(len(plan.todo) / SCENES_PER_JOB), MOST_JOBS), len(plan.selected))
    run = SlurmRun(settings, shard_command(plan.experiment, f"1/{count}"), count, folder, progress, events)
    found, stays = run.found(), False
    try:
        if not found:
            run.begin()
        stays = settings.detach
        if stays:
            raise Detached(f"{run.name} goes on by itself; the same command without detach=true waits for it")
        run.wait(stop)
    except Interrupted:
        stays = stop.signal == signal.Signals.SIGINT.name and _leaves_jobs(run.name)
        if stays:
            raise Interrupted(f"{run.name} goes on by itself; the same command waits for it again") from None
        raise
    finally:
        if not stays:
            run.close()


def shard_command(experiment: Experiment, shard: str) -> list[str]:
    """Return the command that renders a shard (``i/n``) of an experiment on another machine."""
    run = experiment.run
    limit_s = run.slurm_minutes * 60.0
    own = {
        "out": str(experiment.out),
        "executor": "local",
        "detach": "false",
        "shard": shard,
        "stages": "generate",
        "from_stage": "",
        "max_runtime_s": limit_s - min(END_MARGIN_S, limit_s / 4),
    }
    words = [*experiment.words, *(f"{key}={value}" for key, value in own.items())]
    return [sys.executable, "-m", "megasynth_attr.pipeline", *words]


def _folder(experiment: Experiment) -> Path:
    """Return where the jobs of this selection of scenes are recorded; another selection is another run."""
    sizes = {one.attribute: [one.content.dataset_count, one.content.scene_count] for one in experiment.configs}
    selection = {"sizes": sizes, "datasets": experiment.run.datasets, "scenes": experiment.run.scenes}
    return experiment.out / "events" / "slurm" / content_hash(selection)[:8]


def _leaves_jobs(name: str) -> bool:
    """Return whether who pressed Ctrl-C wants the jobs to stay; asks once, on a terminal only."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"\n{name}: type c to cancel, or only Enter to leave it running: ", end="", file=sys.stderr, flush=True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return input().strip().lower() not in ("c", "cancel")
    except EOFError:
        return True
    except KeyboardInterrupt:
        return False
    finally:
        signal.signal(signal.SIGINT, before)
