"""Fixtures: each Blender renders all jobs of a session once, in one process; the tests look at what came out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helpers lie beside the tests

from blender_jobs import all_jobs, write_files
from blender_runtime import RUNTIMES, Outcome, Runtime, find_runtimes


def runtime_or_skip(name: str) -> Runtime:
    """Return a runtime; without it the test fails where CI=true and is skipped elsewhere, as without Python 3.13."""
    runtime = find_runtimes()[name]
    if isinstance(runtime, Runtime):
        return runtime
    if os.environ.get("CI") == "true" and name != "newest":
        pytest.fail(f"{runtime}, and CI=true demands it")
    pytest.skip(runtime)


class Sessions:
    """The outcomes of this test session, by runtime; rendered when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: dict[str, Outcome] = {}

    def outcome(self, name: str) -> Outcome:
        if name not in self.outcomes:
            runtime = runtime_or_skip(name)
            files = write_files(self.folder / f"{name}_files")
            self.outcomes[name] = runtime.run(all_jobs(files), self.folder / name)
        return self.outcomes[name]


@pytest.fixture(scope="session")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    return Sessions(tmp_path_factory.mktemp("blender"))


@pytest.fixture(scope="session", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """One of the Blenders."""
    return runtime_or_skip(request.param)


@pytest.fixture(scope="session", params=RUNTIMES)
def outcome(request: pytest.FixtureRequest, sessions: Sessions) -> Outcome:
    """What one of the Blenders made of all jobs."""
    return sessions.outcome(request.param)


@pytest.fixture(scope="session", params=["binary", "newest"])
def both(request: pytest.FixtureRequest, sessions: Sessions) -> tuple[Outcome, Outcome]:
    """The outcomes of the module and of another Blender, for comparing them."""
    return sessions.outcome("module"), sessions.outcome(request.param)
