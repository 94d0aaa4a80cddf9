"""Typed errors and the exit code of each, in one place (the farm contract)."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum


class ExitCode(IntEnum):
    """What a process tells the farm that started it."""

    DONE = 0  # everything asked for exists and is complete
    CRASH = 1  # a defect: an exception nobody expected
    USAGE = 2  # wrong configuration or input; running again cannot help
    SCENES_FAILED = 3  # some scenes failed for good; see failures/
    ENVIRONMENT = 4  # this machine lacks something: Blender, a GPU, disk space
    INTERRUPTED = 75  # stopped by a signal or out of time; running again resumes


class MegaSynthError(Exception):
    """Base of all expected errors; the message says what was wrong, where, and what to do."""

    exit_code: ExitCode = ExitCode.CRASH


class ConfigError(MegaSynthError):
    """A preset, a key, a value or a selection that cannot be used."""

    exit_code = ExitCode.USAGE


class DatasetError(MegaSynthError):
    """A dataset, bank or picture on disk that is missing, damaged or not what it was said to be."""

    exit_code = ExitCode.USAGE


class EnvironmentProblem(MegaSynthError):
    """The machine lacks what the run needs (Blender, a device, disk space, a package)."""

    exit_code = ExitCode.ENVIRONMENT


class SceneRejected(MegaSynthError):
    """No scene fulfilling the constraints was found within the stated number of trials."""

    exit_code = ExitCode.SCENES_FAILED


class RenderError(MegaSynthError):
    """Blender returned, but what it returned is not a usable frame."""

    exit_code = ExitCode.SCENES_FAILED


class ScenesFailed(MegaSynthError):
    """Some scenes failed for good; the rest of the dataset is complete."""

    exit_code = ExitCode.SCENES_FAILED


class Interrupted(MegaSynthError):
    """Asked to stop (signal or max_runtime) before everything was done."""

    exit_code = ExitCode.INTERRUPTED


def run_main(main: Callable[[list[str]], None], argv: list[str]) -> int:
    """Run ``main(argv)`` and return the exit code; expected errors print one line to stderr, others a traceback.

    A reader of stdout that has seen enough (``| head``) causes no words; a full disk behind stdout is an environment
    problem; characters that stdout's encoding lacks become question marks.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="replace")
    try:
        main(argv)
    except MegaSynthError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return int(_after_output(error.exit_code))
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr, flush=True)
        return int(_after_output(ExitCode.INTERRUPTED))
    except SystemExit as leaving:
        if leaving.code or (lost := _output_lost()) in (None, ExitCode.DONE):
            raise
        return int(lost)
    except OSError:
        if (lost := _output_lost("\n")) is None:  # unbuffered, it shows only with something to write
            raise  # stdout is well: the error is another
        return int(lost or ExitCode.INTERRUPTED)  # main did not come to its end
    return int(_after_output(ExitCode.DONE))


def print_help(text: str) -> None:
    """Print ``text``; a reader who has seen enough of it (``| head``) is no failure."""
    with suppress(BrokenPipeError):
        print(text, flush=True)


def _after_output(code: ExitCode) -> ExitCode:
    """Return ``code``, unless that is DONE and the output was lost."""
    lost = _output_lost()
    return code if lost is None or code != ExitCode.DONE else lost


def _output_lost(more: str = "") -> ExitCode | None:
    """Return None if stdout takes everything printed, and ``more``; else what to exit with, and print no more there."""
    try:
        print(more, end="", flush=True)
        return None
    except BrokenPipeError:
        code = ExitCode.DONE
    except OSError as error:
        print(f"EnvironmentProblem: stdout takes no more output: {error.strerror}; send it elsewhere", file=sys.stderr)
        code = ExitCode.ENVIRONMENT
    # what is still in the buffer goes nowhere, or the interpreter would complain about it at its end
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return code
