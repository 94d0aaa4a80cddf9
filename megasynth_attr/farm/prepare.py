"""Drawing scenes and making their material files ahead of the workers, so that handing out never waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from megasynth_attr.core.codec import content_hash
from megasynth_attr.core.errors import SceneRejected
from megasynth_attr.farm.claims import Claims
from megasynth_attr.farm.library import Library
from megasynth_attr.farm.tasks import Task
from megasynth_attr.farm.work import Problem, RenderJob
from megasynth_attr.scene.sample import sample_scene
from megasynth_attr.scene.spec import scene_to_json


@dataclass(frozen=True)
class Prepared:
    """A task with its job, or with the problem that prevents one."""

    task: Task
    job: RenderJob | Problem
    scene_hash: str = ""


class Preparer:
    """Context manager: a thread that prepares at most ``ahead`` scenes in advance, in the order of the claims."""

    def __init__(self, claims: Claims, libraries: Mapping[str, Library], threads: int, ahead: int) -> None:
        self._claims = claims
        self._libraries = libraries
        self._threads = threads
        self._ready: queue.Queue[Prepared | BaseException] = queue.Queue(maxsize=ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prepare", daemon=True)

    def __enter__(self) -> Preparer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()  # the daemon thread ends after its current scene; nobody waits for it
        with suppress(queue.Empty):
            while True:  # nor does it wait for room
                self._ready.get_nowait()

    def take(self) -> Prepared | None:
        """Return the next scene, or None if it is not ready yet; raises what the preparation raised."""
        try:
            item = self._ready.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        return item

    def _work(self) -> None:
        try:
            while not self._closed.is_set():
                if (task := self._claims.next()) is not None:
                    self._ready.put(self._prepare(task))
                else:
                    self._closed.wait(self._claims.pause_s)
        except BaseException as error:
            self._ready.put(error)  # raised by take() in the scheduler's own thread

    def _prepare(self, task: Task) -> Prepared:
        config, library = task.config, self._libraries[task.config.attribute]
        try:
            scene = sample_scene(config, task.dataset_index, task.scene_index, library.records)
        except SceneRejected as error:
            problem = Problem(type(error).__name__, str(error), int(error.exit_code), stage="sample")
            return Prepared(task, problem)
        job = RenderJob(
            scene_json=scene_to_json(scene),
            dataset_dir=str(task.dataset),
            assets=library.assets_for(scene),
            render=config.render,
            write=config.write,
            quality=config.content.quality,
            device=config.run.device,
            threads=self._threads,
            plugins=config.content.plugins,
        )
        return Prepared(task, job, content_hash(scene.hashes()))
