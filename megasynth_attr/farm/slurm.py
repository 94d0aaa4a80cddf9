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
from typing import Any

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, ExitCode, Interrupted
from megasynth_attr.core.resources import PACKAGE_DIR
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.dataset.paths import finished_scenes
from megasynth_attr.farm.events import EventLog
from megasynth_attr.farm.progress import Progress
from megasynth_attr.farm.tasks import Plan
from megasynth_attr.farm.work import Problem, Report, Work
from megasynth_attr.scene.config import Experiment
from megasynth_attr.scene.settings import RunSettings

SCENES_PER_JOB = 10
MOST_JOBS = 1000  # a usual MaxArraySize
CORES = 4
END_MARGIN_S = 180  # a job stops by itself before Slurm kills it
POLL_S = 2.0
GONE_POLLS = 3  # polls without a result after a job left the queue: files may appear late on a network disk


def check_shard(run: RunSettings) -> None:
    """Raise ConfigError for a shard of the shards that Slurm makes itself."""
    if run.executor == "slurm" and run.shard != "1/1":
        raise ConfigError(f"executor=slurm makes its own shards, one per job; leave out shard={run.shard} or set jobs=")


def require_slurm() -> None:
    """Raise EnvironmentProblem unless jobs can be submitted from this machine."""
    if shutil.which("sbatch") is None:
        raise EnvironmentProblem("executor=slurm: there is no sbatch on this machine; start from a login node")
    if importlib.util.find_spec("submitit") is None:
        raise EnvironmentProblem("executor=slurm needs submitit; `pip install megasynth-attr[farm]`")


def render_on_slurm(plan: Plan, libraries: Mapping[str, Any], stop: StopRequest, events: EventLog) -> None:
    """Submit the shards of the plan and wait for them; shards that ended early are submitted again, ``attempts`` times.

    Raises Interrupted if shards are still incomplete after that, EnvironmentProblem or ConfigError if the jobs say so.
    """
    run = plan.experiment.run
    count = min(run.jobs or math.ceil(len(plan.todo) / SCENES_PER_JOB), MOST_JOBS, len(plan.selected))
    work = {f"{i}/{count}": Work(f"{i}/{count}", shard_command(plan.experiment, i, count)) for i in range(1, count + 1)}
    attempts: Counter[str] = Counter()
    executor = SlurmExecutor(run, plan.experiment.out / "events" / "slurm")
    progress = Progress(
        plan.frames_selected,
        plan.frames_selected - plan.frames_todo,
        expected_s=plan.seconds_needed,
        openjd=run.openjd_progress,
    )
    with contextlib.closing(executor), progress:
        while work:
            attempts.update(work.keys())
            executor.submit(list(work.values()))
            events.write("submitted", shards=sorted(work))
            ended = _wait(executor, plan, progress, stop, events, set(work))
            work = {key: item for key, item in work.items() if not ended[key]}
            if exhausted := [key for key in work if attempts[key] >= run.attempts]:
                raise Interrupted(
                    f"{len(exhausted)} array jobs ended before their shard was complete, e.g. shard {exhausted[0]} "
                    f"(logs in {executor.folder}); run the same command again to resume, perhaps with a larger "
                    "slurm_minutes"
                )


def shard_command(experiment: Experiment, index: int, count: int) -> list[str]:
    """Return the command that renders shard ``index`` of ``count`` of an experiment on another machine."""
    run = experiment.run
    limit_s = run.slurm_minutes * 60.0
    own = {
        "out": str(experiment.out),
        "executor": "local",
        "shard": f"{index}/{count}",
        "stages": "generate",
        "from_stage": "",
        "max_runtime_s": max(limit_s - END_MARGIN_S, limit_s / 2),
    }
    words = [*experiment.words, *(f"{key}={value}" for key, value in own.items())]
    return [sys.executable, "-m", "megasynth_attr.pipeline", *words]


def run_shard(command: Sequence[str]) -> tuple[int, str]:
    """Return the exit code and last error lines of ``command``; runs inside the array job."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    last: list[str] = []
    for line in process.stderr:
        sys.stderr.write(line)
        last = [*last[-4:], line.strip()]
    return process.wait(), " ".join(last[-1:])


class SlurmExecutor:
    """Runs commands, each an element of an array job."""

    def __init__(self, run: RunSettings, folder: Path) -> None:
        import submitit  # of an extra

        self.folder = folder
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

    def submit(self, work: Sequence[Work[list[str]]]) -> None:
        """Submit one array job with an element per command; EnvironmentProblem if Slurm refuses it."""
        import submitit

        self._executor.update_parameters(**self._parameters, array_parallelism=len(work))
        try:
            jobs = self._executor.map_array(run_shard, [item.payload for item in work])
        except submitit.core.utils.FailedJobError as error:
            raise EnvironmentProblem(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from None
        self._jobs |= {item.key: job for item, job in zip(work, jobs, strict=True)}

    def poll(self, timeout_s: float) -> list[Report]:
        """Return the commands that ended; ``failed`` carries the exit code of the command, or of a lost job."""
        time.sleep(timeout_s)
        queued = self._queued()
        reports = []
        for key, job in list(self._jobs.items()):
            if job.paths.result_pickle.exists():
                reports.append(self._report(key, job))
            elif queued is not None and job.job_id not in queued:
                self._gone[key] += 1
                if self._gone[key] >= GONE_POLLS:
                    message = f"Slurm job {job.job_id} left the queue without a result"
                    reports.append(Report(key, "failed", problem=Problem("JobLost", message, int(ExitCode.CRASH))))
        for report in reports:
            del self._jobs[report.key]
            self._gone.pop(report.key, None)
        return reports

    def cancel(self) -> None:
        """Cancel what is still queued or running."""
        for job in self._jobs.values():
            job.cancel(check=False)
        self._jobs = {}

    close = cancel

    def _report(self, key: str, job: Any) -> Report:
        error = job.exception()
        if error is not None:
            return Report(key, "failed", problem=Problem(type(error).__name__, str(error), int(ExitCode.CRASH)))
        code, message = job.result()
        if code == ExitCode.DONE:
            return Report(key, "done")
        return Report(key, "failed", problem=Problem("ShardEnded", message, code))

    def _queued(self) -> set[str] | None:
        """Return the ids of our jobs that Slurm still has in its queue; None if it does not answer."""
        arrays = {job.job_id.partition("_")[0] for job in self._jobs.values()}
        command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(sorted(arrays))}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode and "Invalid job id" not in answer.stderr:
            return None
        return set(answer.stdout.split())


def _wait(
    executor: SlurmExecutor, plan: Plan, progress: Progress, stop: StopRequest, events: EventLog, keys: set[str]
) -> dict[str, bool]:
    """Wait until all shards ``keys`` ended; return for each whether it did all it could (exit code 0 or 3)."""
    ended: dict[str, bool] = {}
    pause_s = POLL_S
    while keys - ended.keys():
        stop.check()
        for report in executor.poll(POLL_S):
            problem = report.problem
            code = problem.exit_code if problem else ExitCode.DONE
            events.write("shard_end", shard=report.key, exit_code=int(code), message=problem.message if problem else "")
            if problem is not None and problem.stops_the_run:
                error = ConfigError if code == ExitCode.USAGE else EnvironmentProblem
                raise error(f"shard {report.key}: {problem.message}")
            ended[report.key] = code in (ExitCode.DONE, ExitCode.SCENES_FAILED)
        pause_s = _count_frames(plan, progress)
        progress.tick()
        time.sleep(max(0.0, pause_s - POLL_S))
    return ended


def _count_frames(plan: Plan, progress: Progress) -> float:
    """Show the scenes that exist by now; return a pause that keeps this from loading the file system."""
    started = time.monotonic()
    done = {folder: set(finished_scenes(folder)) for folder in plan.datasets}
    for task in plan.todo:
        if task.scene_index in done[task.dataset]:
            progress.scene(task.key, task.frames)
    return 20 * (time.monotonic() - started)
