"""Run by Python before anything else where this folder is in PYTHONPATH: ends a process with 99 that imports something
slow before it catches signals."""

import os
import signal
import sys

SLOW = ("numpy", "scipy", "torch", "bpy", "yaml", "PIL")


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import" and arguments[0] in SLOW and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        os.write(2, f"{arguments[0]} is imported before signals are caught\n".encode())
        os._exit(99)


sys.addaudithook(_watch)
