"""Work shared among spawned processes with so many threads each that no result depends on how many there are."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from megasynth_attr.core.errors import EnvironmentProblem, MegaSynthError
from megasynth_attr.core.stop import SIGNALS, StopRequest
from megasynth_attr.core.threads import BLAS_THREADS, counts

Item = TypeVar("Item")
Result = TypeVar("Result")

STOP_POLL_S = 0.2
_GONE = (BrokenPipeError, ConnectionResetError)  # raised by sending to a process that has ended


@dataclass(frozen=True)
class _News:
    """What a process tells while it works on an item."""

    value: Any


def for_each(
    function: Callable[..., Result],
    items: Sequence[Item],
    processes: int,
    stop: StopRequest,
    on_result: Callable[[Item, Result], None],
    *,
    on_news: Callable[[Item, Any], None] | None = None,
    threads: int = 1,
    fewer: str = "run.workers=1",
) -> None:
    """Call ``on_result(item, function(item))`` for every item as soon as it is done.

    ``function``, items and results are pickled; each process has its own copy of the function, which may keep state
    between items, and ``threads`` BLAS threads (0: as many as this one). A process that has finished an item takes the
    next, in the order of ``items``. What a process raises is raised here and ends the others; Interrupted if ``stop``
    asks for it, after which no process is left; EnvironmentProblem if one was killed, with ``fewer`` as advice.
    Processes end by themselves if this one is killed.

    With ``on_news``, for long work that saves what it has done, ``function(item, tell)`` is called, and
    ``on_news(item, news)`` with what it tells and with every line it writes to stderr. Processes that shall end are
    then asked to by SIGTERM, and waited for; so is one that finds nobody to tell.
    """
    waiting = iter(items)
    links: dict[Any, tuple[BaseProcess, Item | None]] = {}  # with the item each works on
    try:
        with _blas_threads(threads):
            for _ in range(min(processes, len(items))):
                process, link = _start(function, talks=on_news is not None)
                links[link] = (process, None)
        for link in links:
            _give_next(links, link, waiting)
        while any(item is not None for _, item in links.values()):
            stop.check()
            busy = [link for link, (_, item) in links.items() if item is not None]
            for link in wait(busy, timeout=STOP_POLL_S):
                process, item = links[link]
                assert item is not None
                answer = _received(link, process, item, stop, fewer)
                if on_news is not None and isinstance(answer, _News):
                    on_news(item, answer.value)
                    continue
                on_result(item, answer)
                _give_next(links, link, waiting)
    finally:
        busy = [link for link, (_, item) in links.items() if item is not None]
        for link, (process, item) in links.items():
            if item is None:  # an idle one ends because its link is closed
                link.close()
            elif on_news is None:
                process.kill()
            else:
                process.terminate()
        for link in busy:
            if on_news is not None:
                _hear_out(link, links[link][1], on_news)
            link.close()
        for process, _ in links.values():
            process.join()


@contextmanager
def _blas_threads(threads: int) -> Iterator[None]:
    """Set the variables that processes started inside read when they load NumPy; this process is not affected."""
    before = {name: os.environ.get(name) for name in BLAS_THREADS}
    os.environ.update(counts(threads) if threads else {})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is not None:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)


def _start(function: Callable[..., Result], *, talks: bool) -> tuple[BaseProcess, Any]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, talks))
    resource_tracker.ensure_running()  # else start() runs it, which unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the other process ignores them, see _serve
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    there.close()  # only the other process keeps it open, so its end is noticed here
    with suppress(*_GONE):  # as in _give_next
        # not as an argument: start() would hang if the process died before reading it
        here.send(function)
    return process, here


def _give_next(links: dict[Any, tuple[BaseProcess, Item | None]], link: Any, waiting: Iterator[Item]) -> None:
    item = next(waiting, None)
    links[link] = (links[link][0], item)
    if item is not None:
        with suppress(*_GONE):  # it has just ended, which is noticed when its answer is awaited
            link.send(item)


def _received(link: Any, process: BaseProcess, item: Item, stop: StopRequest, fewer: str) -> Any:
    """Return the result or the news of a process; raises what it raised."""
    try:
        answer = link.recv()
    except (EOFError, OSError):  # OSError: it ended in the middle of a message
        process.join()
        stop.check()  # whoever asked this process to stop may have killed the others
        raise EnvironmentProblem(
            f"the process that worked on {item} was killed (exit code {process.exitcode}); if memory ran out, use "
            f"fewer processes, e.g. {fewer}; running the same command again continues"
        ) from None
    if isinstance(answer, _News):
        return answer
    result, error, trace = answer
    if error is not None:
        if not isinstance(error, MegaSynthError):  # a bug: its report needs the process's traceback
            error.add_note(f"while a process worked on {item}:\n{trace}")
        raise error
    return result


def _hear_out(link: Any, item: Any, on_news: Callable[[Any, Any], None]) -> None:
    """Pass on what a process still tells, and with which error it ends."""
    with suppress(EOFError, OSError):  # as in _received
        while isinstance(answer := link.recv(), _News):
            on_news(item, answer.value)
        if answer[1] is not None:
            on_news(item, str(answer[1]))


def _serve(link: Connection[Any, Any], talks: bool) -> None:
    """Run as one process: receive the function, then answer every item until the other end is closed."""
    for number in SIGNALS:  # a terminal sends them to all processes; the parent decides what to do
        signal.signal(number, signal.SIG_IGN)
    own, alone = os.getpid(), threading.RLock()

    def tell(news: Any) -> None:
        if os.getpid() != own:  # a loader's process, forked from this one
            return
        try:
            with alone:
                link.send(_News(news))
        except _GONE:
            os.kill(own, signal.SIGTERM)

    if talks:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at once, unless a StopRequest is open
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    with suppress(EOFError, *_GONE), redirect_stderr(_Lines(tell) if talks else sys.stderr):
        function = link.recv()
        while True:
            item = link.recv()
            try:
                result = function(item, tell) if talks else function(item)
                answer: tuple[Any, Exception | None, str] = (result, None, "")
            except Exception as error:  # raised again where it is received
                answer = (None, error, traceback.format_exc())
            link.send(answer)


class _Lines(io.TextIOBase):
    """A text stream that tells every line that is written to it."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._rest = tell, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(None, lines):
            self._tell(line)
        return len(text)
