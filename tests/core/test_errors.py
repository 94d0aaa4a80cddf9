"""Exit codes and stdout: what a program says to the shell when nobody can or wants to listen."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from megasynth_attr.core.errors import ConfigError, ExitCode, choices, is_out_of_memory, print_note, run_main

PROGRAM = r"""
import sys
from megasynth_attr.core.errors import ConfigError, print_help, run_main

def main(words):
    if "help" in words:
        print_help("word " * int(words[0]))
        return
    print("line \u2013\n" * int(words[0]), flush="flush" in words)
    if "leave" in words:
        raise SystemExit(0)
    if "fail" in words:
        raise ConfigError("wrong")

sys.exit(run_main(main, sys.argv[1:]))
"""


def program(*words: str, stdout: int, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | changes
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("3",), ExitCode.DONE, ""),
        (("3", "leave"), ExitCode.DONE, ""),
        (("3", "fail"), ExitCode.USAGE, "ConfigError: wrong\n"),
        (("100000",), ExitCode.INTERRUPTED, ""),  # in the middle of main
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_away(words: tuple[str, ...], code: ExitCode, said: str, unbuffered: str) -> None:
    if unbuffered:
        code = ExitCode.INTERRUPTED  # the first line already fails, in the middle of main
        said = ""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = program(*words, stdout=writing, PYTHONUNBUFFERED=unbuffered)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_whose_reader_has_gone_away_is_a_success(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = program("100000", "help", stdout=writing, PYTHONUNBUFFERED=unbuffered)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (ExitCode.DONE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [("3",), ("3", "leave"), ("3", "flush")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout(words: tuple[str, ...], unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = program(*words, stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == ExitCode.ENVIRONMENT
    assert (
        done.stderr == "EnvironmentProblem: stdout takes no more output: No space left on device; send it elsewhere\n"
    )


def test_characters_the_terminal_lacks() -> None:
    done = program("1", stdout=subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.DONE, "line ?\n\n", "")


def test_other_errors_keep_their_traceback() -> None:
    def crash(words: list[str]) -> None:
        raise FileNotFoundError("a defect")

    def wrong(words: list[str]) -> None:
        raise ConfigError("x=3 is wrong")

    with pytest.raises(FileNotFoundError):
        run_main(crash, [])
    assert run_main(wrong, []) == ExitCode.USAGE


def test_control_characters_reach_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(lambda words: throw(ConfigError("out=é\n\x1b[31m\u202e is wrong")), []) == ExitCode.USAGE
    assert capsys.readouterr() == ("", "ConfigError: out=é\\n\\x1b[31m\\u202e is wrong\n")


def test_names_from_files_steer_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(lambda words: print("a\x1b[2J\x07\u202eb\tc\nd\u00a0é\r", flush=True), []) == ExitCode.DONE
    print_note("\x9b31mnote")
    print("\x1b", end="")  # outside, stdout is as it was
    assert capsys.readouterr() == ("a\\x1b[2J\\x07\\u202eb\tc\nd\u00a0é\\r\n\x1b", "\\x9b31mnote\n")


CANNOT_ALLOCATE = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)


@pytest.mark.parametrize(
    ("cause", "code", "said"),
    [
        (lambda: np.empty(2**45), ExitCode.ENVIRONMENT, "EnvironmentProblem: memory is exhausted (Unable to allocate"),
        (lambda: [0] * 2**62, ExitCode.ENVIRONMENT, "memory is exhausted (MemoryError)"),
        (lambda: throw(RuntimeError(CANNOT_ALLOCATE)), ExitCode.ENVIRONMENT, "fewer workers"),
        (lambda: throw(BrokenProcessPool("abruptly")), ExitCode.ENVIRONMENT, "a worker process was killed"),
        (
            lambda: Path("x" * 300).stat(),
            ExitCode.USAGE,
            "File name too long (most file systems take 255 bytes a name and 4,096 a path); give another path",
        ),
        (lambda: Path("a\0b").mkdir(), ExitCode.USAGE, "NUL character"),
        (lambda: Path("a\0b").read_bytes(), ExitCode.USAGE, "NUL character"),
        (lambda: os.fsdecode(b"caf\xe9").encode(), ExitCode.USAGE, r"'caf\udce9' is not UTF-8"),
        (
            lambda: throw(PermissionError(errno.EACCES, "Permission denied", "/elsewhere/x")),
            ExitCode.ENVIRONMENT,
            "/elsewhere/x: Permission denied",
        ),
    ],
)
def test_what_only_the_machine_or_the_words_can_cause(
    cause: Callable[[], object], code: ExitCode, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(lambda words: cause(), []) == code
    out, message = capsys.readouterr()
    assert said in message and message.count("\n") == 1 and out == ""


@pytest.mark.parametrize(
    "defect", [RuntimeError("shapes differ"), ValueError("x"), OSError(errno.ENOSPC, "no name"), RecursionError("deep")]
)
def test_defects_are_not_translated(defect: Exception) -> None:
    with pytest.raises(type(defect)):
        run_main(lambda words: throw(defect), [])


def test_pytorchs_own_error_is_recognised() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**45)
    assert is_out_of_memory(raised.value)


def test_an_empty_list_of_choices_is_not_offered() -> None:
    assert choices(["a", "b"]) == "known: a, b"
    assert choices([]) == "there is none to choose from"


def throw(error: Exception) -> None:
    raise error
