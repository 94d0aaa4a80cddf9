"""Kills, signals and second runs: what is left behind, and that the same command ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from test_mine import FAST, contents, mined
from written_cluster import write_cluster

from megasynth_attr.core.errors import ConfigError, ExitCode
from megasynth_train.mine import MiningResult
from megasynth_train.subspace.layer_file import is_whole

DEPTH = 4
SLOWER = ("mining.null_draws=150",)  # so that a kill comes in time


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cluster(tmp_path_factory.mktemp("clusters") / "cluster", depth=DEPTH)


@pytest.fixture(scope="module")
def whole(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> MiningResult:
    return mined(cluster, tmp_path_factory.mktemp("subspaces") / "out", *SLOWER)


def started(cluster: Path, out: Path, until: Callable[[], bool]) -> subprocess.Popen[str]:
    """Start the program and return it as soon as ``until`` holds."""
    words = {word.partition("=")[0]: word for word in (*FAST, *SLOWER, f"cluster={cluster}", f"out={out}", "workers=2")}
    process = subprocess.Popen(
        [sys.executable, "-m", "megasynth_train.mine", *words.values()], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not until():
        time.sleep(0.005)
    assert process.poll() is None, process.stderr.read() if process.stderr else ""
    return process


def mined_layers(out: Path) -> set[str]:
    return {path.name for path in (out / "layers").glob("*.safetensors")}


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(cluster: Path, whole: MiningResult, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(cluster, out, lambda: len(mined_layers(out)) >= 3)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.wait()
    wait_until_gone(children)  # nobody tells them: they see that their end of the pipe is closed
    kept = {name: (out / "layers" / name).stat().st_mtime_ns for name in mined_layers(out)}
    assert kept and not (out / "done.json").exists() and not (out / "all.safetensors").exists()
    damaged = sorted(kept)[0]
    (out / "layers" / damaged).write_bytes((out / "layers" / damaged).read_bytes()[:-7])
    (out / "layers" / "tmp").mkdir(exist_ok=True)
    result = mined(cluster, out, *SLOWER)
    assert contents(out) == contents(whole.out)
    assert not result.already_done and not (out / "layers").exists() and not (out / "tmp").exists()


@pytest.mark.slow
def test_other_settings_begin_anew_while_nothing_is_finished(
    cluster: Path, whole: MiningResult, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = started(cluster, out, lambda: len(mined_layers(out)) >= 2)
    process.kill()
    process.wait()
    result = mined(cluster, out, "dimension=1")
    assert {row.dimension for row in result.analysis.layers} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop(cluster: Path, whole: MiningResult, tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    process = started(cluster, out, lambda: len(mined_layers(out)) >= 1)
    with pytest.raises(ConfigError, match="another run is writing"):
        mined(cluster, out, *SLOWER)
    children = psutil.Process(process.pid).children(recursive=True)
    for target in (process.pid, *(child.pid for child in children)):  # as a terminal or a batch system does
        with suppress(ProcessLookupError):
            os.kill(target, number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, text
    assert text.startswith("Interrupted: stopped by SIG") and "Traceback" not in text
    wait_until_gone(children)
    mined(cluster, out, *SLOWER)
    assert contents(out) == contents(whole.out)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_named(cluster: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(cluster, out, lambda: len(mined_layers(out)) >= 1)
    workers = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    workers[0].kill()
    _, text = process.communicate(timeout=60)
    assert process.returncode == ExitCode.ENVIRONMENT, text
    assert "EnvironmentProblem: the process that worked on aggregator." in text and "run.workers=1" in text
    wait_until_gone(workers)


@pytest.mark.parametrize("blocks", [2, 12])  # of 1024 bytes: not even the settings; not all layers
def test_a_full_disk_is_named(cluster: Path, tmp_path: Path, blocks: int) -> None:
    out = tmp_path / "out"
    words = " ".join([*FAST, f"cluster={cluster}", f"out={out}"])
    limited = f"ulimit -f {blocks}; exec {sys.executable} -m megasynth_train.mine {words}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    assert done.returncode == ExitCode.ENVIRONMENT, done.stderr
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert (out / "settings.json").exists() == (blocks > 2) and not (out / "done.json").exists()
    assert all(is_whole(out / "layers" / name) for name in mined_layers(out))
    mined(cluster, out, "modules=.*0.attn.proj")
