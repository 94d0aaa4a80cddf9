"""What is asked of Slurm: to take an array of jobs, how it is, to cancel it. Through its own commands."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.selection import as_ranges

ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip
LIMIT_S = 60  # for one answer
USUAL_ARRAY_SIZE = 1001  # Slurm's default MaxArraySize


class Element(NamedTuple):
    """One element of an array job, in Slurm's words; all attempts of a requeued one are the same element."""

    job: int
    shard: int
    state: str
    node: str
    reason: str

    @property
    def alive(self) -> bool:
        """Whether Slurm will still do something with it."""
        return self.state not in ENDED

    @property
    def closing(self) -> bool:
        """Whether its commands have ended, or are being ended."""
        return self.state == "COMPLETING"


class SlurmQueue:
    """The arrays of one run. They are known by their name, so none is lost whatever happens to who submitted it."""

    def __init__(self, name: str, options: Sequence[str]) -> None:
        self._name = name
        self._options = options
        config = _ask("scontrol", "show", "config").stdout
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", config)
        self.most = max(1, int(found[1]) if found else USUAL_ARRAY_SIZE)  # elements in one array

    def submit(self, script: str, first: int, indices: Sequence[int], excluded: Iterable[str]) -> int:
        """Submit ``script`` for the shards ``first + index`` and return the job's id; EnvironmentProblem if refused."""
        options = [*self._options, f"--job-name={self._name}-{first}", f"--array={as_ranges(sorted(indices))}"]
        if nodes := ",".join(sorted(excluded)):
            options.append(f"--exclude={nodes}")
        answer = _ask("sbatch", "--parsable", *options, given=script)
        found = re.search(r"^(\d+)(;.*)?$", answer.stdout, re.MULTILINE)  # id;cluster
        if answer.returncode or found is None:
            raise EnvironmentProblem(f"Slurm refuses the jobs: {' '.join((answer.stderr or answer.stdout).split())}")
        return int(found[1])

    def look(self) -> list[Element] | None:
        """Return all elements that Slurm still knows, also some that ended; None if it does not answer."""
        answer = _ask("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%j|%F|%K|%T|%N|%r")
        if answer.returncode:
            return None
        elements = []
        for line in answer.stdout.splitlines():
            name, job, index, state, node, reason = line.split("|", 5)
            run, _, first = name.rpartition("-")
            if run == self._name and index.isdigit():
                elements.append(Element(int(job), int(first) + int(index), state, node, reason))
        return elements

    def exclude(self, jobs: Iterable[int], nodes: Iterable[str]) -> None:
        """Keep what still waits in ``jobs`` away from ``nodes``."""
        for job in jobs:  # an error is expected: elements that run cannot be changed
            _ask("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(sorted(nodes))}")

    def cancel(self, jobs: Iterable[int]) -> None:
        """Cancel ``jobs`` with all their elements."""
        if ids := sorted({str(job) for job in jobs}):
            _ask("scancel", *ids)


def _ask(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands; Ctrl-C does not reach it, and one that hangs counts as failed."""
    try:
        return subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, timeout=LIMIT_S, start_new_session=True
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
