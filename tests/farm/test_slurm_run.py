"""What is done about jobs that end, wait or are lost; Slurm and the jobs are played by the tests."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, Interrupted
from megasynth_attr.core.files import json_bytes
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.farm import slurm_run
from megasynth_attr.farm.events import EventLog
from megasynth_attr.farm.progress import Progress
from megasynth_attr.farm.slurm_job import Status, read_status, status_file
from megasynth_attr.farm.slurm_queue import Element
from megasynth_attr.farm.slurm_run import SlurmRun
from megasynth_attr.scene.settings import RunSettings


class FakeSlurm:
    """Stands for SlurmQueue; ``play`` says after each look what happens next to the elements."""

    def __init__(self) -> None:
        self.most = 100
        self.takes = 10_000  # elements in the queue at most
        self.elements: dict[int, Element] = {}  # by shard
        self.submitted: list[list[int]] = []
        self.excluded: list[str] = []  # for the last array
        self.avoided: list[str] = []  # by waiting jobs
        self.cancelled: list[int] = []

    def submit(self, script: str, first: int, indices: Sequence[int], excluded: Iterable[str]) -> int:
        alive = sum(one.alive for one in self.elements.values())
        if alive + len(indices) > self.takes:
            raise EnvironmentProblem("Slurm refuses the jobs: job submit limit")
        self.submitted.append([first + index for index in indices])
        job = len(self.submitted)
        for index in indices:
            self.elements[first + index] = Element(job, first + index, "PENDING", "", "Priority")
        self.excluded = sorted(excluded)
        return job

    def look(self) -> list[Element]:
        return list(self.elements.values())

    def exclude(self, jobs: Iterable[int], nodes: Iterable[str]) -> None:
        self.avoided = sorted(nodes)

    def cancel(self, jobs: Iterable[int]) -> None:
        self.cancelled += sorted(jobs)


class Played:
    """A run of ``count`` shards; ``plays`` are called one after another for every job that waits."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, **settings: Any) -> None:
        monkeypatch.setattr(slurm_run, "LONGEST_POLL_S", 0.0)
        self.slurm, self.said = FakeSlurm(), io.StringIO()
        monkeypatch.setattr(slurm_run, "SlurmQueue", lambda name, options: self.slurm)
        plan: Any = SimpleNamespace(frames_selected=10 * count, frames_todo=10 * count, seconds_needed=1)
        self.events, self.progress = EventLog(tmp_path), Progress(plan, stream=self.said)
        self.folder = tmp_path / "run"
        self.run = self.command(count, **settings)
        self.run.begin()
        self._look = self.slurm.look

    def command(self, count: int, **settings: Any) -> SlurmRun:
        return SlurmRun(RunSettings(**settings), ["x"], count, self.folder, self.progress, self.events)

    @property
    def status_folder(self) -> Path:
        return self.folder / self.run._record.name

    def ends(self, shard: int, code: int | None, *, state: str = "FAILED", scenes: int = 0, node: str = "a") -> None:
        """Let the job of a shard end: it has finished ``scenes`` more and says ``code``, or nothing."""
        job, before = self.slurm.elements[shard].job, read_status(self.status_folder, shard)
        self.slurm.elements[shard] = Element(job, shard, state, node, "None")
        status = Status(job=job, node=node, scenes=before.scenes + scenes, exit_code=code, message=f"code {code}")
        replace_atomically(status_file(self.status_folder, shard), json_bytes(status))

    def wait(self, play: Any) -> None:
        def look() -> list[Element]:
            for shard, element in list(self.slurm.elements.items()):
                if element.state == "PENDING":
                    play(shard, element.job)
            return self._look()

        self.slurm.look = look  # type: ignore[method-assign]
        with StopRequest() as stop:
            self.run.wait(stop)


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda count, **settings: Played(tmp_path, monkeypatch, count, **settings)


def test_any_number_of_time_slices_is_allowed_while_scenes_are_finished(played: Any) -> None:
    it = played(1, attempts=1)
    it.wait(lambda shard, job: it.ends(shard, 75 if job < 8 else 0, scenes=1))
    assert it.slurm.submitted == [[1]] * 8


def test_jobs_without_a_new_scene_are_given_up_and_the_others_finish(played: Any) -> None:
    it = played(3, attempts=2)
    with pytest.raises(
        Interrupted, match=r"1 of 3 shards were given up, after 2 jobs without .* shard 2/3 on a: code 1"
    ):
        it.wait(lambda shard, job: it.ends(shard, 1 if shard == 2 else 0))
    assert it.slurm.submitted == [[1, 2, 3], [2]]


def test_one_bad_node_is_left_out(played: Any) -> None:
    it = played(4, attempts=1)

    def play(shard: int, job: int) -> None:
        bad = job == 1 and shard != 3
        it.ends(shard, 4 if bad else 0, node="bad" if bad else "good")

    it.wait(play)
    assert it.slurm.submitted == [[1, 2, 3, 4], [1, 2, 4]]  # most said so, but all of one node
    assert it.slurm.excluded == it.slurm.avoided == ["bad"]


def test_most_shards_on_several_nodes_end_the_run(played: Any) -> None:
    it = played(5, attempts=9)
    with pytest.raises(EnvironmentProblem, match=r"code 4 \(so say 3 of 5\)"):
        it.wait(lambda shard, job: it.ends(shard, 4, node=f"n{shard}") if shard < 4 else None)


def test_wrong_words_end_the_run_once_most_say_so(played: Any) -> None:
    it = played(3)
    with pytest.raises(ConfigError, match="code 2"):
        it.wait(lambda shard, job: it.ends(shard, 2))
    assert it.slurm.submitted == [[1, 2, 3]]


def test_a_job_that_never_began_tells_against_its_node(played: Any) -> None:
    it = played(2)

    def play(shard: int, job: int) -> None:
        if job == 1 and shard == 1:
            it.slurm.elements[1] = Element(1, 1, "FAILED", "bad", "NonZeroExitCode")
        else:
            it.ends(shard, 0)

    it.wait(play)
    assert it.slurm.excluded == ["bad"]
    assert "shard 1/2 on bad: job 1 cannot even start (NonZeroExitCode); see its log; submitted again" in (
        it.said.getvalue()
    )


def test_a_job_that_died_in_silence_is_submitted_again(played: Any) -> None:
    it = played(1)
    it.wait(lambda shard, job: it.ends(shard, None if job == 1 else 0, state="OUT_OF_MEMORY"))
    assert "job 1 ended as OUT_OF_MEMORY; submitted again" in it.said.getvalue()


def test_what_an_attempt_said_does_not_count_while_slurm_goes_on_with_it(played: Any) -> None:
    it, looks = played(1, attempts=1), []

    def play(shard: int, job: int) -> None:
        looks.append(shard)
        it.ends(1, 75 if len(looks) < 9 else 0)
        if len(looks) < 9:  # Slurm has requeued it
            it.slurm.elements[1] = Element(job, 1, "PENDING", "", "BeginTime")

    it.wait(play)
    assert it.slurm.submitted == [[1]]


@pytest.mark.parametrize("code", [75, None])
def test_preempted_jobs_do_not_count(code: int | None, played: Any) -> None:
    it = played(1, attempts=1)
    it.wait(lambda shard, job: it.ends(1, code, state="PREEMPTED") if job < 4 else it.ends(1, 0))
    assert it.slurm.submitted == [[1]] * 4


def test_more_jobs_than_slurm_takes_are_submitted_later(played: Any) -> None:
    it = played(1)
    it.slurm.most, it.slurm.takes, it.slurm.elements, it.slurm.submitted = 2, 4, {}, []
    it.run = it.command(7)
    it.run.begin()
    assert it.slurm.submitted == [[1, 2], [3, 4]]
    it.wait(lambda shard, job: it.ends(shard, 0))
    assert it.slurm.submitted == [[1, 2], [3, 4], [5, 6], [7]]
    assert "job submit limit" in it.said.getvalue()


def test_no_other_node_is_left(played: Any) -> None:
    it = played(1)

    def play(shard: int, job: int) -> None:
        it.ends(1, 4)
        it.slurm.takes = 0

    with pytest.raises(EnvironmentProblem, match="shard 1/1 on a: code 4"):
        it.wait(play)
    assert it.slurm.avoided == []  # jobs that wait would wait for ever


def test_a_second_command_takes_the_run_over(played: Any) -> None:
    it = played(3)
    it.ends(1, 0, scenes=2)
    it.ends(2, 4)
    it.run = it.command(9)  # another jobs= changes nothing now
    assert it.run.found()
    it.wait(lambda shard, job: it.ends(shard, 0))
    assert it.slurm.submitted == [[1, 2, 3], [2]]
    assert not it.command(9).found()  # nothing is in the queue any more


def test_silence_of_slurm_is_no_answer(played: Any) -> None:
    it = played(3)
    it.slurm.look = lambda: None
    with pytest.raises(EnvironmentProblem, match="Slurm does not say whether the jobs of an earlier command still run"):
        it.command(3).found()
    it.run._look()
    assert "does not answer" in it.progress._elsewhere
    it.run.close()
    assert it.slurm.cancelled == [1] and (it.folder / slurm_run.RECORD).exists()  # they may go on
