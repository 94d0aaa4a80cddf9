"""The stage ``generate``: renders every selected scene that does not exist yet."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import DatasetError, MegaSynthError, ScenesFailed
from megasynth_attr.core.files import read_json
from megasynth_attr.core.machine import check_disk, check_writable
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.temporary import remove_leftovers
from megasynth_attr.dataset import index
from megasynth_attr.dataset.paths import DATASET_FILE, TMP, failure_file
from megasynth_attr.dataset.record import finalise, lists_all, open_for_writing
from megasynth_attr.farm.claims import POLL_S, Claims
from megasynth_attr.farm.damage import set_aside_damaged
from megasynth_attr.farm.events import EventLog, host_name
from megasynth_attr.farm.experiment import open_experiment
from megasynth_attr.farm.launch import find_blender
from megasynth_attr.farm.library import Library, cache_dir, open_library
from megasynth_attr.farm.local import LocalPool
from megasynth_attr.farm.prepare import Preparer
from megasynth_attr.farm.progress import Progress
from megasynth_attr.farm.schedule import Schedule
from megasynth_attr.farm.scratch import scratch_folder
from megasynth_attr.farm.slurm import render_on_slurm, require_slurm
from megasynth_attr.farm.tasks import Plan, Tasks, describe, make_plan, select_all_shards
from megasynth_attr.scene.config import Experiment


def check_machine(experiment: Experiment) -> None:
    """Raise EnvironmentProblem unless the selected scenes that do not exist yet can be rendered on this machine."""
    plan = make_plan(experiment)
    if plan.todo:
        if experiment.run.executor == "local":
            find_blender(experiment.run.blender)
        else:
            require_slurm()
        check_writable(experiment.out)
        check_disk(experiment.out, plan.bytes_needed, f"{plan.frames_todo} frames")


def generate(experiment: Experiment) -> None:
    """Render the selected scenes that do not exist yet and complete each dataset.json.

    Raises ScenesFailed if some could not be rendered (all others then exist), Interrupted after a signal or when
    ``max_runtime_s`` is over, EnvironmentProblem or ConfigError if a worker says that nothing can be rendered.
    """
    with StopRequest(experiment.run.max_runtime_s) as stop:
        open_experiment(experiment)
        plan = make_plan(experiment)
        print(f"preset    {experiment.preset} → {experiment.out}", *describe(plan), sep="\n", flush=True)
        libraries = {config.attribute: open_library(config, cache_dir(experiment)) for config in experiment.configs}
        for task in plan.datasets.values():
            open_for_writing(task.config, experiment.out, task.dataset_index)
        with Claims(experiment.out) as claims:
            run = experiment.run
            if not claims.lock(f"{run.datasets} {run.scenes} {run.shard}"):
                print("shared    another run does the same here; the two share the scenes", flush=True)
            elif set_aside_damaged(plan):
                plan = make_plan(experiment)
                print(*describe(plan), sep="\n", flush=True)
            if plan.todo:
                _render(plan, libraries, stop, claims)
            _finish(plan, libraries, stop, claims)
        _raise_for_missing(plan)
        stop.check_signal()  # one that came after the last scene must keep the next stage from starting


def _render(plan: Plan, libraries: Mapping[str, Library], stop: StopRequest, claims: Claims) -> None:
    run, work = plan.experiment.run, {"scenes": len(plan.todo), "frames": plan.frames_todo}
    with EventLog(plan.experiment.out) as events:
        events.write("start", host=host_name(), pid=os.getpid(), run=to_plain(run), **work, **to_plain(plan.pool))
        try:
            with Progress(plan, openjd=run.openjd_progress) as progress:
                if run.executor == "slurm":
                    render_on_slurm(plan, progress, stop, events, claims)
                else:
                    _render_here(plan, libraries, progress, stop, events, claims)
        except MegaSynthError as error:
            events.write("end", error=type(error).__name__, message=str(error), exit_code=int(error.exit_code))
            raise
        events.write("end", error=None)


def _render_here(
    plan: Plan,
    libraries: Mapping[str, Library],
    progress: Progress,
    stop: StopRequest,
    events: EventLog,
    claims: Claims,
) -> None:
    """Render on this machine, with the pool, what no other run renders."""
    run = plan.experiment.run
    claims.share(plan.todo)

    def clean_up() -> None:
        for folder in plan.datasets:
            remove_leftovers(folder / TMP)

    with (
        scratch_folder() as scratch,
        LocalPool(find_blender(run.blender), scratch, plan.pool, run, on_death=clean_up) as pool,
        Preparer(claims, libraries, plan.pool.threads, ahead=plan.pool.workers + 1) as preparer,
    ):
        Schedule(plan, claims, pool, preparer, progress, events).run(stop)


def _finish(plan: Plan, libraries: Mapping[str, Library], stop: StopRequest, claims: Claims) -> None:
    """Complete every dataset.json that does not list its scenes yet; a shard those that have all their scenes.

    Runs that share scenes end together: one of them does it, and the others wait for it. A damaged scene of another
    shard is not this one's to render, and no reason to fail: a run of all scenes sets it aside.
    """
    wanted = {part.dataset: part for part in select_all_shards(plan.experiment).parts}
    left = dict(plan.datasets)
    if plan.experiment.run.shard != "1/1":
        left = {folder: task for folder, task in left.items() if wanted[folder].is_finished()}
    while True:
        started = time.monotonic()
        for folder in [folder for folder in left if lists_all(folder)]:
            index.drop_notes(folder)
            del left[folder]
        if not left:
            return
        if claims.lock(DATASET_FILE):
            for folder, task in left.items():
                try:
                    finalise(folder, libraries[task.config.attribute].material_records())
                except DatasetError as damage:
                    if plan.experiment.run.shard == "1/1":
                        raise
                    print(f"unfinished {folder.name}: {damage}; or run the same command without shard=", flush=True)
            return
        time.sleep(max(POLL_S, 10 * (time.monotonic() - started)))
        stop.check()


def _raise_for_missing(plan: Plan) -> None:
    """Raise ScenesFailed if a selected scene does not exist; success is read from the files."""
    missing = Tasks(part._replace(scenes=list(part.missing())) for part in plan.todo.parts)
    if not missing:
        return
    first = missing[0]
    record = failure_file(first.dataset, first.scene_index)
    reason = read_json(record).get("message") if record.is_file() else "it left no failure record"
    raise ScenesFailed(
        f"{len(missing)} of {len(plan.selected)} scenes could not be rendered, e.g. {first.key}: {reason} "
        f"(see {record.parent}); the others are complete; the same command tries these again"
    )
