"""What a program does before it imports anything else: catch signals, and settle its threads (threads.py).

Signals end it with the exit code that tells a farm to run it again. Importing NumPy or PyTorch takes seconds, in which
the system's default would end the process like a crash. ``run_main`` then lets signals interrupt the work, so that it
cleans up. Imports nothing that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # USR1 and USR2: schedulers, before the end
EXIT_INTERRUPTED, EXIT_ENVIRONMENT = 75, 4  # as in errors.ExitCode; importing errors takes too long
WORKER = "megasynth_attr.farm.worker"  # belongs to a scheduler, which watches how it ends

_owner = 0  # the process that catches signals
_caught: list[signal.Signals] = []


def begin_program_of(package: str, extra: str = "") -> None:
    """Do what ``begin_program`` does if Python imports ``package`` to run it or a module in it by ``python -m``."""
    named = any(f"{word.removeprefix('-m')}.".startswith(f"{package}.") for word in sys.orig_argv)
    if sys.argv[:1] == ["-m"] and named and WORKER not in sys.orig_argv:
        begin_program(extra)


def begin_program(extra: str = "") -> None:
    """Catch the signals of this process, settle its threads, and let a package that is missing be named.

    ``extra`` is the part of the installation that brings the packages, such as "[train]".
    """
    catch_signals()
    sys.excepthook = lambda kind, error, trace: _name_missing_package(kind, error, trace, extra)
    from megasynth_attr.core.threads import settle

    settle()


def _name_missing_package(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None, extra: str
) -> None:
    """End the process with exit code 4 where an import finds no package; other errors as Python does."""
    package = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
    if not package or "." in package or package.startswith("megasynth_"):  # a part of a package: another version of it
        sys.__excepthook__(kind, error, trace)
        return
    install = f"pip install 'megasynth-attr{extra}' (in a checkout: pip install -e '.{extra}')"
    text = f"EnvironmentProblem: the Python package {package} is missing; {install}\n"
    try:
        os.write(2, text.encode())
    finally:
        os._exit(EXIT_ENVIRONMENT)


def catch_signals() -> None:
    """End the process with exit code 75 at any signal from now on, but those that whoever started it lets it ignore."""
    global _owner
    _owner = os.getpid()
    _caught[:] = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    _replace(_leave)


def interrupt_from_now_on() -> None:
    """Let signals raise KeyboardInterrupt; changes nothing in a process that did not call ``catch_signals``."""
    _replace(_interrupt)


def ignore_from_now_on() -> None:
    """Let no signal change an exit code that is known; changes nothing where ``catch_signals`` was not called."""
    _replace(signal.SIG_IGN)


def _replace(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    if _owner == os.getpid():
        for number in _caught:
            signal.signal(number, handler)


def leave_if_importing(number: int, frame: FrameType | None) -> None:
    """End the process as ``catch_signals`` does if ``frame`` is part of an import, also a late one.

    An exception there would come out as another: extension modules make an ImportError of it, or lose it.
    """
    while _owner == os.getpid() and frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _leave(number, frame)
        frame = frame.f_back


def _leave(number: int, frame: FrameType | None) -> None:
    if not _is_copy(number):
        text = f"Interrupted: stopped by {signal.Signals(number).name}; run the same command again\n"
        try:
            os.write(2, text.encode())
        finally:
            os._exit(EXIT_INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _is_copy(number):
        leave_if_importing(number, frame)
        raise KeyboardInterrupt(f"stopped by {signal.Signals(number).name}")


def _is_copy(number: int) -> bool:
    """Return False in the program itself; a fork of it takes the signal as it would have without us."""
    if os.getpid() == _owner:
        return False
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return True
