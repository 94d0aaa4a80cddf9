"""Typed errors and the exit code of each, in one place (the farm contract)."""

from __future__ import annotations

import errno
import io
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from enum import IntEnum
from typing import Any

from megasynth_attr.core.early import ignore_from_now_on, interrupt_from_now_on


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

    def __str__(self) -> str:
        """The message in one line; control characters, which would reach the terminal, are escaped."""
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().__str__())


class ConfigError(MegaSynthError):
    """A preset, a key, a value or a selection that cannot be used."""

    exit_code = ExitCode.USAGE


class DatasetError(MegaSynthError):
    """A dataset, bank or picture on disk that is missing, damaged or not what was expected."""

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


class Detached(MegaSynthError):
    """What was asked for is on its way elsewhere, as wanted; nothing failed."""

    exit_code = ExitCode.DONE


_STEERING = ("Cc", "Cf", "Zl", "Zp")  # categories of characters that move the cursor, colour or turn text
_SHOWN = 80  # characters of a path or text that a message shows
_MISTYPED = {  # no such path can exist
    errno.ENAMETOOLONG: " (most file systems take 255 bytes a name and 4,096 a path)",
    errno.ELOOP: "",
}
_OF_THE_MACHINE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE,
)  # fmt: skip
_MEMORY_WORDS = ("DefaultCPUAllocator", "out of memory", "Cannot allocate memory")  # of PyTorch's RuntimeErrors
LESS_MEMORY = "use fewer workers, smaller images or batches, or a machine with more memory"


def run_main(main: Callable[[list[str]], None], argv: list[str]) -> int:
    """Run ``main(argv)`` and return the exit code; expected errors print one line to stderr, others a traceback.

    Expected are MegaSynthErrors and what ``expected`` makes of others. A reader of stdout that stops early (``| head``)
    causes no message; a full disk behind stdout is an environment problem; characters that stdout's encoding lacks
    become question marks, and those that steer a terminal are escaped, as names and texts of other people's files are
    printed. In a program that catches signals (core/early.py) they interrupt ``main``.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="replace")
    code = ExitCode.DONE
    try:
        try:
            interrupt_from_now_on()
            with redirect_stdout(_Printable(sys.stdout)) if sys.stdout else nullcontext():
                main(argv)
        finally:
            ignore_from_now_on()
    except KeyboardInterrupt as stop:
        print(f"{str(stop) or 'interrupted'}; run the same command again to resume", file=sys.stderr, flush=True)
        code = ExitCode.INTERRUPTED
    except SystemExit as leaving:
        if leaving.code or (lost := _output_lost()) in (None, ExitCode.DONE):
            raise
        return int(lost)
    except Exception as raised:
        if (error := expected(raised)) is None:
            # an unbuffered stdout that is closed or full only fails when something is written; its errors name no file
            unnamed = isinstance(raised, OSError) and raised.filename is None
            if not unnamed or (lost := _output_lost("\n")) is None:
                raise
            return int(lost or ExitCode.INTERRUPTED)  # main did not finish
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    lost = _output_lost()
    return int(code if lost is None or code != ExitCode.DONE else lost)


def expected(error: BaseException) -> MegaSynthError | None:
    """Return the typed error that an exception stands for, None if it can only be a defect.

    Paths that no file system takes (too long, a NUL inside, no UTF-8 where text is written) are ConfigErrors; memory
    that is exhausted, a worker that was killed, and files the system refuses (rights, disk) are EnvironmentProblems.
    """
    if isinstance(error, MegaSynthError):
        return error
    if is_out_of_memory(error):
        return EnvironmentProblem(f"memory is exhausted ({first_line(error)}); {LESS_MEMORY}")
    if isinstance(error, BrokenExecutor):
        return EnvironmentProblem(f"a worker process was killed, most often because memory ran out; {LESS_MEMORY}")
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        around = error.object[max(0, error.start - _SHOWN) : error.end + _SHOWN]
        return ConfigError(f"{around!r} is not UTF-8 and cannot be written as text; rename the file or folder")
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return ConfigError("a path has a NUL character in it, which no file name can have; give another")
    if isinstance(error, OSError) and error.filename is not None:
        if error.errno in _MISTYPED:
            name = os.fsdecode(error.filename)
            shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
            return ConfigError(f"{shown!r}: {error.strerror}{_MISTYPED[error.errno]}; give another path")
        if error.errno in _OF_THE_MACHINE:
            return EnvironmentProblem(f"{error.filename}: {error.strerror}; mend this, then run the same command again")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` means that the memory of the machine or of a device is exhausted."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _MEMORY_WORDS)
    )


@contextmanager
def importing(needs: str) -> Iterator[None]:
    """Turn an ImportError raised inside into the EnvironmentProblem ``needs``, with its message for ``{error}``."""
    try:
        yield
    except ImportError as error:
        raise EnvironmentProblem(needs.replace("{error}", str(error))) from None


def choices(names: Iterable[str]) -> str:
    """Return "known: a, b" for a message about an unknown name, or that there is nothing to choose from."""
    listed = ", ".join(names)
    return f"known: {listed}" if listed else "there is none to choose from"


def first_line(error: BaseException) -> str:
    """Return how the message of ``error`` begins, or its type where it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def print_note(text: str) -> None:
    """Print ``text``, which may hold names of other people's files, to stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def print_help(text: str) -> None:
    """Print ``text``; a reader that stops early (``| head``) is no failure."""
    with suppress(BrokenPipeError):
        print(text, flush=True)


def printable(text: str) -> str:
    """Return ``text``, lines and all, with the characters escaped that would steer a terminal."""
    if text.isprintable():
        return text
    steering = {c for c in text if c not in "\n\t" and unicodedata.category(c) in _STEERING}
    return "".join(c.encode("unicode_escape").decode() if c in steering else c for c in text)


class _Printable:
    """A stream that is written ``printable`` text only."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return int(self._stream.write(printable(text)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _output_lost(more: str = "") -> ExitCode | None:
    """Return None if stdout takes everything printed, and ``more``; else the exit code, after silencing stdout."""
    try:
        print(more, end="", flush=True)
        return None
    except BrokenPipeError:
        code = ExitCode.DONE
    except OSError as error:
        print(f"EnvironmentProblem: stdout takes no more output: {error.strerror}; send it elsewhere", file=sys.stderr)
        code = ExitCode.ENVIRONMENT
    # what is still in the buffer is discarded, or the interpreter would complain about it at exit
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return code
