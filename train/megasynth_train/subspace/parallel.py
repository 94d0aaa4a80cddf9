"""Work shared among spawned processes with one BLAS thread each, so that no result depends on how many there are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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


def for_each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    processes: int,
    stop: StopRequest,
    on_result: Callable[[Item, Result], None],
) -> None:
    """Call ``on_result(item, function(item))`` for every item as soon as it is done.

    ``function``, items and results are pickled; each process has its own copy of the function, which may keep state
    between items. A process that has finished an item takes the next, in the order of ``items``. What a process raises
    is raised here and ends the others; Interrupted if ``stop`` asks for it, after which no process is left;
    EnvironmentProblem if one was killed. Processes end by themselves if this one is killed.
    """
    waiting = iter(items)
    links: dict[Any, tuple[BaseProcess, Item | None]] = {}  # with the item each works on
    try:
        with _one_blas_thread():
            for _ in range(min(processes, len(items))):
                process, link = _start(function)
                links[link] = (process, None)
        for link in links:
            _give_next(links, link, waiting)
        while any(item is not None for _, item in links.values()):
            stop.check()
            busy = [link for link, (_, item) in links.items() if item is not None]
            for link in wait(busy, timeout=STOP_POLL_S):
                process, item = links[link]
                assert item is not None
                on_result(item, _received(link, process, item, stop))
                _give_next(links, link, waiting)
    finally:
        for link, (process, item) in links.items():
            link.close()
            if item is not None:  # an idle one ends because its link is closed
                process.kill()
        for process, _ in links.values():
            process.join()


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Set the variables that processes started inside read when they load NumPy; this process is not affected."""
    before = {name: os.environ.get(name) for name in BLAS_THREADS}
    os.environ.update(counts(1))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(function: Callable[[Item], Result]) -> tuple[BaseProcess, Any]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,))
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


def _received(link: Any, process: BaseProcess, item: Item, stop: StopRequest) -> Any:
    try:
        result, error, trace = link.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        stop.check()  # whoever asked this process to stop may have killed the others
        raise EnvironmentProblem(
            f"the process that worked on {item} was killed (exit code {process.exitcode}); if memory ran out, use "
            "fewer processes, e.g. run.workers=1; running the same command again continues"
        ) from None
    if error is not None:
        if not isinstance(error, MegaSynthError):  # a bug: its report needs the process's traceback
            error.add_note(f"while a process worked on {item}:\n{trace}")
        raise error
    return result


def _serve(link: Connection[Any, Any]) -> None:
    """Run as one process: receive the function, then answer every item until the other end is closed."""
    for number in SIGNALS:  # a terminal sends them to all processes; the parent decides what to do
        signal.signal(number, signal.SIG_IGN)
    with suppress(EOFError, *_GONE):
        function = link.recv()
        while True:
            item = link.recv()
            try:
                answer: tuple[Any, Exception | None, str] = (function(item), None, "")
            except Exception as error:  # raised again where it is received
                answer = (None, error, traceback.format_exc())
            link.send(answer)
