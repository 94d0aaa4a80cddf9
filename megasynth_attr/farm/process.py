"""One Blender worker as the scheduler sees it: a process, a socket to it and its log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from megasynth_attr.farm.launch import Launcher

LOG_LINES = 20
LOG_BYTES = 16_384


class WorkerProcess:
    """A started worker. Its end of a pair of sockets is inherited, so nothing but this process can talk to it.

    The socket closes when either side dies, whatever killed it: both notice at once.
    """

    def __init__(self, name: str, launcher: Launcher, scratch: Path, threads: int) -> None:
        self.name = name
        self.is_ready = False  # it has said hello
        self.scene: str | None = None  # what it renders
        self.scenes = 0  # that it has rendered
        self.since = time.monotonic()  # when it was started, or began its scene
        # without a name the log cannot be left behind
        self._log = tempfile.TemporaryFile(mode="a+b", dir=scratch)  # noqa: SIM115 - lives as long as the worker
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                launcher.command(theirs.fileno()),
                env=launcher.environment(scratch, threads),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # its own group: killed whole, and Ctrl-C reaches the scheduler only
            )

    def begin(self, scene: str) -> None:
        """Note that the worker is given ``scene``: the log in a failure record is about that one alone."""
        self.scene, self.since = scene, time.monotonic()
        self._log.truncate(0)

    def send(self, message: dict[str, Any]) -> None:
        """Send ``message``; a worker that died meanwhile is noticed at the next ``receive``."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> list[dict[str, Any]]:
        """Return all messages that wait; raises EOFError once the worker is gone and all were read."""
        messages: list[dict[str, Any]] = []
        try:
            while self.connection.poll():
                messages.append(json.loads(self.connection.recv_bytes()))
        except (EOFError, ConnectionResetError):
            if not messages:
                raise EOFError from None
        return messages

    def log_tail(self) -> tuple[str, ...]:
        """Return the last lines the worker printed."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_BYTES))
        text = self._log.read().decode("utf-8", errors="replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return tuple(lines[-LOG_LINES:])

    def kill(self) -> int:
        """Kill the worker and everything it started; returns how it ended (negative: by that signal)."""
        if not self.connection.closed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self.connection.close()
        return self._process.returncode

    def reap(self, timeout_s: float) -> int:
        """Return how a worker that closed its socket ended; it is killed if it lingers."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.kill()
