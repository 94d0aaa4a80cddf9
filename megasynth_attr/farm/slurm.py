"""Rendering on a Slurm cluster: an array of jobs through ``submitit``, each running this pipeline on one shard.

The jobs need this Python environment and the output folder on a shared file system. Each gets ``workers × threads``
cores (4 if neither is set), and one GPU if ``device`` is not cpu. What was achieved is read from the output folder;
the state Slurm reports only says whether there is something left to wait for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, ExitCode, Interrupted
from megasynth_attr.core.resources import PACKAGE_DIR
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.dataset.paths import finished_scenes
from megasynth_attr.farm.events import EventLog
from megasynth_attr.farm.progress import Progress
from megasynth_attr.farm.tasks import Plan
from megasynth_attr.farm.work import raise_if_hopeless
from megasynth_attr.scene.config import Experiment
from megasynth_attr.scene.settings import RunSettings

SCENES_PER_JOB = 10
MOST_JOBS = 1000  # a usual MaxArraySize
CORES = 4
END_MARGIN_S = 180  # a job stops by itself before Slurm kills it
POLL_S = 2.0
GONE_POLLS = 3  # polls without a result after a job left the queue: files may appear late on a network disk


def check_shard(run: RunSettings) -> None:
    """Raise ConfigError for ``shard=`` with ``executor=slurm``, which makes its own shards."""
    if run.executor == "slurm" and run.shard != "1/1":
        raise ConfigError(f"executor=slurm makes its own shards, one per job; leave out shard={run.shard} or set jobs=")


def require_slurm() -> None:
    """Raise EnvironmentProblem unless jobs can be submitted from this machine."""
    if shutil.which("sbatch") is None:
        raise EnvironmentProblem("executor=slurm: there is no sbatch on this machine; start from a login node")
    if importlib.util.find_spec("submitit") is None:
        raise EnvironmentProblem("executor=slurm needs submitit; `pip install megasynth-attr[farm]`")


class Ended(NamedTuple):
    """A shard whose command ended, with its exit code and last error line, or whose job was lost."""

    shard: str
    exit_code: int
    message: str


def render_on_slurm(plan: Plan, progress: Progress, stop: StopRequest, events: EventLog) -> None:
    """Submit the shards of the plan and wait for them; shards that ended early are submitted again, ``attempts`` times.

    Raises Interrupted if shards are still incomplete after that, EnvironmentProblem or ConfigError if the jobs say so.
    """
    run = plan.experiment.run
    count = min(run.jobs or math.ceil(len(plan.todo) / SCENES_PER_JOB), MOST_JOBS, len(plan.selected))
    shards = [f"{index}/{count}" for index in range(1, count + 1)]
    folder = plan.experiment.out / "events" / "slurm"
    with contextlib.closing(SlurmJobs(run, folder)) as jobs:
        for _ in range(run.attempts):
            jobs.submit({shard: shard_command(plan.experiment, shard) for shard in shards})
            events.write("submitted", shards=sorted(shards))
            complete = _wait(jobs, plan, progress, stop, events, len(shards))
            shards = [shard for shard in shards if shard not in complete]
            if not shards:
                return
    raise Interrupted(
        f"{len(shards)} array jobs ended before their shard was complete, e.g. shard {shards[0]} (logs in {folder}); "
        "run the same command again to resume, perhaps with a larger slurm_minutes"
    )


def shard_command(experiment: Experiment, shard: str) -> list[str]:
    """Return the command that renders a shard (``i/n``) of an experiment on another machine."""
    run = experiment.run
    limit_s = run.slurm_minutes * 60.0
    own = {
        "out": str(experiment.out),
        "executor": "local",
        "shard": shard,
        "stages": "generate",
        "from_stage": "",
        "max_runtime_s": max(limit_s - END_MARGIN_S, limit_s / 2),
    }
    words = [*experiment.words, *(f"{key}={value}" for key, value in own.items())]
    return [sys.executable, "-m", "megasynth_attr.pipeline", *words]


def run_shard(command: Sequence[str]) -> tuple[int, str]:
    """Return the exit code and last error line of ``command``; runs inside the array job."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    last = ""
    for line in process.stderr:
        sys.stderr.write(line)
        last = line.strip()
    return process.wait(), last


class SlurmJobs:
    """Runs commands, each an element of an array job."""

    def __init__(self, run: RunSettings, folder: Path) -> None:
        import submitit  # from the extra [farm]

        self._jobs: dict[str, Any] = {}
        self._gone: Counter[str] = Counter()
        self._executor = submitit.SlurmExecutor(folder=folder)
        self._parameters = {
            "job_name": "megasynth-attr",
            "time": run.slurm_minutes,
            "cpus_per_task": (run.workers or 1) * (run.threads or 1) if run.workers or run.threads else CORES,
            "setup": [f"export PYTHONPATH={PACKAGE_DIR.parent}{os.pathsep}$PYTHONPATH"],
            "stderr_to_stdout": True,
        }
        if run.partition:
            self._parameters["partition"] = run.partition
        if run.device != "cpu":
            self._parameters["gpus_per_node"] = 1

    def submit(self, commands: Mapping[str, list[str]]) -> None:
        """Submit one array job with an element per shard's command; EnvironmentProblem if Slurm refuses it."""
        import submitit

        self._executor.update_parameters(**self._parameters, array_parallelism=len(commands))
        try:
            jobs = self._executor.map_array(run_shard, list(commands.values()))
        except submitit.core.utils.FailedJobError as error:
            raise EnvironmentProblem(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from None
        self._jobs |= dict(zip(commands, jobs, strict=True))

    def poll(self) -> list[Ended]:
        """Return the shards whose commands ended since the last call."""
        queued, ended = self._queued(), []
        for shard, job in list(self._jobs.items()):
            if job.paths.result_pickle.exists():
                error = job.exception()
                ended.append(Ended(shard, *((int(ExitCode.CRASH), str(error)) if error else job.result())))
            elif queued is not None and job.job_id not in queued:
                self._gone[shard] += 1
                if self._gone[shard] >= GONE_POLLS:
                    message = f"Slurm job {job.job_id} left the queue without a result"
                    ended.append(Ended(shard, int(ExitCode.CRASH), message))
        for one in ended:
            del self._jobs[one.shard]
            self._gone.pop(one.shard, None)
        return ended

    def close(self) -> None:
        """Cancel what is still queued or running."""
        for job in self._jobs.values():
            job.cancel(check=False)

    def _queued(self) -> set[str] | None:
        """Return the ids of our jobs that Slurm still has in its queue; None if it does not answer."""
        arrays = {job.job_id.partition("_")[0] for job in self._jobs.values()}
        command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(sorted(arrays))}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode and "Invalid job id" not in answer.stderr:
            return None
        return set(answer.stdout.split())


def _wait(jobs: SlurmJobs, plan: Plan, progress: Progress, stop: StopRequest, events: EventLog, count: int) -> set[str]:
    """Wait until ``count`` shards ended; return those that did all they could (exit code 0 or 3)."""
    ended: dict[str, int] = {}
    pause_s = POLL_S
    while len(ended) < count:
        time.sleep(pause_s)
        stop.check()
        for shard, code, message in jobs.poll():
            events.write("shard_end", shard=shard, exit_code=code, message=message)
            raise_if_hopeless(code, f"shard {shard}: {message}")
            ended[shard] = code
        pause_s = max(POLL_S, _count_frames(plan, progress))
        progress.tick()
    return {shard for shard, code in ended.items() if code in (ExitCode.DONE, ExitCode.SCENES_FAILED)}


def _count_frames(plan: Plan, progress: Progress) -> float:
    """Show the scenes that exist by now; return a pause that keeps this from loading the file system."""
    started = time.monotonic()
    done = {folder: set(finished_scenes(folder)) for folder in plan.datasets}
    for task in plan.todo:
        if task.scene_index in done[task.dataset]:
            progress.scene(task.key, task.frames)
    return 20 * (time.monotonic() - started)
