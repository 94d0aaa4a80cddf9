"""Signals in the first second of every program: exit code 75, whatever is being imported."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from runs import catches

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = re.compile(r'^if __name__ == "__main__":\n    sys\.exit\(run_(?:main|program)\(', re.MULTILINE)
SOURCES = [(ROOT, path) for path in sorted((ROOT / "megasynth_attr").rglob("*.py"))]
SOURCES += [(ROOT / "train", path) for path in sorted((ROOT / "train" / "megasynth_train").rglob("*.py"))]
RENDER = [str(ROOT / "blender_scripts" / "render.py")]
PROGRAMS = {
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__main__"): path
    for root, path in SOURCES
    if PROGRAM.search(path.read_text(encoding="utf-8"))
}
COMMANDS = {name: ["-m", name] for name in PROGRAMS} | {"render.py": RENDER}
for package, program in (("megasynth_attr", "verify"), ("megasynth_train", "finetune")):  # as the installed commands do
    COMMANDS[f"{package} {program}"] = ["-c", f"from {package}.__main__ import main; main()", program]
WATCHED = Path(__file__).with_name("watched")
WORDS = {"megasynth_attr.pipeline": ["preset=megasynth", "plan=true"]}
MOMENTS = [i / 20 for i in range(20)]  # seconds


@contextmanager
def starting(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a program that has just come to our first line: before that a signal ends Python itself, whatever we do."""
    command = [sys.executable, *COMMANDS[name], *WORDS.get(name, ["--help"])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (WATCHED, ROOT, ROOT / "train")))}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not catches(process.pid, signal.SIGTERM):
            time.sleep(0.001)
        yield process


def stop(name: str, moment_s: float, number: int = signal.SIGTERM) -> int:
    """Return the exit code of a program that gets a signal, 0 if it had done its work by then."""
    with starting(name) as process:
        time.sleep(moment_s)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert b"Traceback" not in said, said
    return process.returncode


def test_the_programs_are_all_there() -> None:
    assert len(PROGRAMS) >= 22 and {"megasynth_train.finetune", "megasynth_train.cluster"} <= PROGRAMS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_program_catches_signals_before_it_imports_anything(name: str) -> None:
    assert stop(name, 0) == 75


def test_at_any_moment_of_the_first_second() -> None:
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(partial(stop, "megasynth_attr.pipeline"), MOMENTS))
    assert codes[:3] == [75, 75, 75] and set(codes) <= {75, 0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_other_signals(number: int) -> None:
    assert stop("megasynth_attr.dataset.verify", 0.05, number) == 75


@pytest.mark.proof
@pytest.mark.parametrize("name", COMMANDS)
def test_every_program_at_any_moment(name: str) -> None:
    codes = [stop(name, moment_s) for moment_s in MOMENTS]
    print(f"{name:40}", *codes)
    assert set(codes) <= {75, 0}


def test_signals_are_not_caught_where_our_packages_are_only_imported() -> None:
    code = "import signal, megasynth_attr, megasynth_train; print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'train'}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


FORKS = """
import os, signal, sys, time
from megasynth_attr.core.early import catch_signals
from megasynth_attr.core.errors import run_main

def main(words):
    ready, say = os.pipe()
    child = os.fork()
    if not child:
        os.write(say, b"!")  # Python forgets signals that come while it forks
        time.sleep(60)
        os._exit(1)
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    print("child", os.waitpid(child, 0)[1], flush=True)
    os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(60)

catch_signals()
code = run_main(main, [])
os.kill(os.getpid(), signal.SIGTERM)  # too late to change anything
print("code", code)
"""


def test_forks_end_by_the_signal_and_the_program_by_itself() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "child 15\ncode 75\n"
    assert done.stderr == "stopped by SIGUSR2; run the same command again to resume\n"


@pytest.mark.parametrize("start", [["-m", "megasynth_train.finetune"], ["-m", "megasynth_train", "finetune"]])
def test_a_package_that_is_missing_is_named(start: list[str], tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "train")])}
    done = subprocess.run([sys.executable, *start, "--help"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 4 and "pip install 'megasynth-attr[train]'" in done.stderr
    assert done.stderr.startswith("EnvironmentProblem: the Python package torch is missing; ")
    assert done.stderr.count("\n") == 1


def test_a_part_that_a_package_lacks_is_no_missing_package() -> None:
    code = "from megasynth_attr.core.early import begin_program; begin_program('[train]'); import json.no_such_part"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "pip install" not in done.stderr
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'json.no_such_part'\n")
