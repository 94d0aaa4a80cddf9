"""The Blender side: takes scenes from the scheduler, renders them, reports frames. Runs inside Blender.

``python -m megasynth_attr.farm.worker FD`` with the bpy module, or
``blender -b --factory-startup --python-exit-code 1 -P megasynth_attr/farm/worker.py -- FD`` with a binary. FD is the
number of an inherited socket. Messages are JSON:

    scheduler → worker   {"do": "scene", "job": RenderJob} | {"do": "stop"}
    worker → scheduler   {"event": "hello"}
                         {"event": "warning", "message"}
                         {"event": "frame"}   one more is rendered and written
                         {"event": "done", "build_s", "cycles_s", "write_s", "commit_s", "wall_s"}
                         {"event": "error", "kind", "message", "exit_code"}   the last one
"""

from __future__ import annotations

import errno
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

if __name__ == "__main__" and __package__ in (None, ""):  # run as a file by a Blender binary
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from megasynth_attr.blender.bootstrap import find_packages

    find_packages()

from megasynth_attr.core.errors import ExitCode, MegaSynthError

SCHEDULER_GONE = int(ExitCode.INTERRUPTED)
Report = Callable[..., None]
_begun_with: dict[Path, str] = {}  # datasets → the version of Blender that rendered their first scene


def main(arguments: list[str]) -> None:
    """Serve the scheduler at the other end of the inherited socket until it says stop or goes away."""
    connection = Connection(int(arguments[0]))
    _die_with_parent()
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(connection, orders), daemon=True).start()

    def report(event: str, **values: Any) -> None:
        connection.send_bytes(json.dumps({"event": event, **values}).encode())

    try:
        from megasynth_attr.blender.compat import blender_version

        blender_version()  # EnvironmentProblem for a Blender that cannot be used
        report("hello")
        while (order := orders.get())["do"] == "scene":
            report("done", **_render_scene(order["job"], report))
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(SCHEDULER_GONE)
    except Exception as error:
        traceback.print_exc()
        report("error", kind=type(error).__name__, message=_message(error), exit_code=_exit_code(error))


def _listen(connection: Connection, orders: queue.Queue[dict[str, Any]]) -> None:
    """Pass orders on; end this process at once when the scheduler is gone (a render in the main thread would not)."""
    while True:
        try:
            order = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(SCHEDULER_GONE)
        orders.put(order)


def _die_with_parent() -> None:
    """Ask Linux to kill this process with its parent: works even while Blender holds the interpreter lock."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def _render_scene(job_record: dict[str, Any], report: Report) -> dict[str, float]:
    """Render, write and commit one scene; return the seconds its parts took."""
    from megasynth_attr.blender.build import build_scene
    from megasynth_attr.blender.render import render_record, render_view
    from megasynth_attr.core.codec import from_plain
    from megasynth_attr.dataset.writer import SceneWriter
    from megasynth_attr.farm.work import RenderJob
    from megasynth_attr.scene.factor import load_plugins
    from megasynth_attr.scene.spec import scene_from_json

    job = from_plain(RenderJob, job_record, "job")
    load_plugins(job.plugins)
    scene = scene_from_json(job.scene_json, "job")
    started = time.monotonic()
    with _warnings_reported(report):
        record = render_record(job.render, job.write, job.quality, job.device)
        _compare_blender(Path(job.dataset_dir), record["blender"])
        stage = build_scene(
            scene,
            job.assets,
            render=job.render,
            write=job.write,
            quality=job.quality,
            device=job.device,
            threads=job.threads,
        )
    build_s = time.monotonic() - started
    cycles_s = write_s = 0.0
    size = job.render.width_px, job.render.height_px
    with SceneWriter(Path(job.dataset_dir), scene, *size, job.write, record) as writer:
        for index in range(len(scene.factors["camera"].positions)):
            view = render_view(stage, index)
            rendered = time.monotonic()
            writer.write_frame(index, view.frame)
            cycles_s, write_s = cycles_s + view.cycles_s, write_s + time.monotonic() - rendered
            report("frame")
        commit_started = time.monotonic()
        writer.commit()
    now = time.monotonic()
    parts = {"build_s": build_s, "cycles_s": cycles_s, "write_s": write_s, "commit_s": now - commit_started}
    return {**parts, "wall_s": now - started}


def _compare_blender(dataset: Path, now: str) -> None:
    """Warn if another version of Blender began the dataset: of that, one of its first scenes tells."""
    from megasynth_attr.dataset.paths import finished_by_thousand, scene_path
    from megasynth_attr.dataset.reader import SceneData, blender_of

    if dataset not in _begun_with:
        for indices in filter(None, finished_by_thousand(dataset)):
            with suppress(MegaSynthError):  # a damaged scene is another matter
                _begun_with[dataset] = blender_of(SceneData(scene_path(dataset, indices[0])))
            break
    before = _begun_with.get(dataset)
    if before and before != now:
        warnings.warn(
            f"{dataset.name} was begun with Blender {before}, and this is {now}: pictures differ in more than the "
            "dataset says, and depth in its last digits, which verify reports; stop, and choose one of them, blender=",
            stacklevel=2,
        )


@contextmanager
def _warnings_reported(report: Report) -> Iterator[None]:
    """Pass warnings on to the scheduler: nobody reads a worker's log."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            report("warning", message=str(warning.message))


def _message(error: BaseException) -> str:
    return str(error) if isinstance(error, MegaSynthError) else f"{type(error).__name__}: {error}"


def _exit_code(error: BaseException) -> int:
    """Return what an error means for the run: a full or read-only disk fails every scene, other surprises only one."""
    if isinstance(error, MegaSynthError):
        return int(error.exit_code)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return int(ExitCode.ENVIRONMENT)
    return int(ExitCode.CRASH)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    main(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # Blender's own way out takes longer and can crash with a thread waiting
