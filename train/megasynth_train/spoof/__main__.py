"""``python -m megasynth_train.spoof``: are printed faces flat and real heads not, to a model?

::

    <out>/results.json   every scene's numbers, each run's and each method's
    <out>/results.md     the table of methods, also printed
    <out>/index.html     point clouds of both classes side by side

The folder appears only when it is complete.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from megasynth_attr.core.codec import from_plain, to_plain
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, DatasetError, ScenesFailed, print_note, run_main
from megasynth_attr.core.files import json_bytes, read_json, storage_errors, write_durably
from megasynth_attr.core.machine import refuse_several_processes
from megasynth_attr.core.pages.clouds import Cloud
from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_attr.core.run_folder import Kind, check, read_record
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.temporary import replacing_folder
from megasynth_train.compare.manifest import COMPARISON, CONTROL, EVALUATION, runs_of
from megasynth_train.evaluate.__main__ import BEGINS_ANEW, RESULTS, TABLES, load_model
from megasynth_train.evaluate.inputs import Selection, select_scenes
from megasynth_train.evaluate.options import EvaluateSettings
from megasynth_train.evaluate.page import PageScene, PageWords, write_point_page
from megasynth_train.evaluate.results import FORMAT as EVALUATION_FORMAT
from megasynth_train.evaluate.run import SceneEvaluation, evaluate_scenes
from megasynth_train.spoof.measure import planarity
from megasynth_train.spoof.results import CLASSES, FORMAT, RunScenes, results_record, results_text
from megasynth_train.spoof.settings import SpoofSettings
from megasynth_train.training.processes import make_accelerator
from megasynth_train.training.run_folder import read_done
from megasynth_train.training.settings import ModelSettings
from megasynth_train.vggt.precision import set_backends

SPOOF = Kind("spoof test", RESULTS, FORMAT)
HELP = Help(
    usage="python -m megasynth_train.spoof printed=FOLDER real=FOLDER out=FOLDER [key=value ...]",
    explanation=(
        "Measures how flat a model makes printed faces and real heads, and how well that tells them apart: planarity,\n"
        "ROC-AUC and equal error rate, beside the errors on the printed planes; for one model or for every run of a\n"
        "comparison. Scenes that cannot be measured are named and left out (exit code 3)."
    ),
    examples=(
        "python -m megasynth_train.spoof printed=runs/spoof/spoof_plane_00 real=runs/heads/spoof_heads_00 "
        "checkpoint=facebook/VGGT-1B pixel_centre=0 out=runs/spoof_test",
        "python -m megasynth_train.spoof printed=runs/spoof/spoof_plane_00 real=runs/heads/spoof_heads_00 "
        "comparison=runs/paper_spoof/training/comparison out=runs/spoof_test",
    ),
)
_WORDS = PageWords(
    title="Printed and real faces",
    left="Printed",
    right="Real",
    lead="each a pair: what one model predicts for a printed face (left) and for a real head (right), seen from the "
    "first camera, upright, scaled to the same spread.",
)


def run(settings: SpoofSettings) -> dict[str, Any]:
    """Measure as ``settings`` say, write the folder ``out``, and return what results.json holds.

    Raises, with nothing written, ConfigError, DatasetError (a model that does not fit, a class without scenes),
    EnvironmentProblem or Interrupted after a signal.
    """
    settings.check()
    if settings.page:
        require_report_libraries()
    out = Path(settings.out).resolve()
    check(out, SPOOF)
    with StopRequest(patient=False, advice=BEGINS_ANEW):
        device = make_accelerator(settings.device).device
        set_backends(settings.threads)
        models = list(_models(settings))
        scenes = {name: select_scenes(models[0][2].of_class(getattr(settings, name))) for name in CLASSES}
        with StopRequest(advice=BEGINS_ANEW) as stop, replacing_folder(out, "the spoof test") as work:
            runs = [_measure(*one, scenes, device, stop.check, shown=i == 0) for i, one in enumerate(models)]
            record = results_record(runs, to_plain(replace(settings, out="")))
            with storage_errors("the results", work):
                write_durably(work / TABLES, results_text(record).encode())
                write_durably(work / RESULTS, json_bytes(record))
            if settings.page:
                write_point_page(work, _pairs(runs[0], settings.page_scenes), _WORDS)
    return record


def _models(settings: SpoofSettings) -> Iterator[tuple[str, int | None, SpoofSettings]]:
    """Yield (method, seed, settings with its model) of the one model, or of every finished run of the comparison."""
    if not settings.comparison:
        yield (Path(settings.adapter).name if settings.adapter else "base"), None, settings
        return
    folder = Path(settings.comparison).resolve()
    if not (folder / COMPARISON.record).is_file():
        raise ConfigError(f"comparison={settings.comparison}: it holds no {COMPARISON.record}, so it is no comparison")
    manifest = read_record(folder, COMPARISON)
    finished = 0
    controls = [name for name in manifest["order"] if CONTROL in manifest["methods"][name]]
    if controls:
        print_note(f"{', '.join(controls)}: left out, their adapters are not kept")
    names = [name for name in manifest["order"] if name not in controls]
    for one in (one for name in names for one in runs_of(name, manifest)):
        file = one.folder(folder) / EVALUATION / RESULTS
        done = read_done(one.folder(folder)) if one.seed is not None else None
        if not file.is_file() or (one.seed is not None and done is None):
            print_note(f"{one.name}: not finished, left out")
            continue
        finished += 1
        how = read_json(file, EVALUATION_FORMAT)["settings"]
        adapter = str(one.folder(folder) / done["result"]) if done else ""
        model: ModelSettings = from_plain(ModelSettings, how["model"], str(file))
        yield (
            one.method,
            one.seed,
            replace(
                settings,
                adapter=adapter,
                basis=how["basis"],
                model=model,
                width_px=settings.width_px or how["width_px"],
                pixel_centre=how["pixel_centre"],
            ),
        )
    if not finished:
        raise DatasetError(f"comparison={settings.comparison}: none of its runs is finished; run compare first")


def _measure(
    method: str,
    seed: int | None,
    settings: SpoofSettings,
    scenes: dict[str, Selection],
    device: torch.device,
    check: Callable[[], None],
    *,
    shown: bool,
) -> RunScenes:
    """Return what one model makes of all scenes; ``shown``: keep its point clouds for the page."""
    found = RunScenes(method, seed)
    how: EvaluateSettings = settings.of_class(settings.printed)
    model, _ = load_model(how, device)
    for name, selection in scenes.items():

        def keep(scene: SceneEvaluation, name: str = name) -> None:
            flatness = {
                "planarity": planarity(scene.predicted_points),
                "true_planarity": planarity(scene.true_points),
            }
            metrics = ("accuracy_mean", "completeness_mean", "nc_mean")
            errors = {key: float(scene.numbers["points"][key]) for key in metrics}
            found.scenes[name][scene.name] = {**flatness, **errors}
            if shown and len(found.shown[name]) < settings.page_scenes:
                found.shown[name].append(_upright(scene, flatness["planarity"]))

        bar = tqdm(selection.scenes, desc=f"{method} {name}", unit="scene", disable=not settings.progress)
        _, bad = evaluate_scenes(model, bar, device, how, keep, check)
        found.excluded += [*selection.unreadable, *bad]
    return found


def _upright(scene: SceneEvaluation, flatness: float) -> PageScene:
    """Return a scene's predicted points as the page shows them: its first camera looks along +y, z is up."""
    first = scene.true_cameras[0]
    seen = scene.predicted_points @ first[:3, :3].T + first[:3, 3]  # x right, y down, z forward
    points = seen[:, [0, 2, 1]] * [1, 1, -1]
    points = points - points.mean(axis=0)
    points /= max(float(np.sqrt((points**2).sum(axis=1).mean())), 1e-12)
    cloud, nothing = Cloud(points.astype("float32"), scene.colours), np.zeros((0, 4, 4))
    return PageScene(scene.name, cloud, cloud, nothing, nothing, {"flat": f"{flatness:.4f}"})


def _pairs(run: RunScenes, limit: int) -> list[PageScene]:
    """Return printed and real scenes in pairs: the printed one on the page's left, the real one on its right."""
    nothing = np.zeros((0, 4, 4))
    pairs = list(zip(run.shown["printed"], run.shown["real"], strict=False))[:limit]
    return [
        PageScene(
            f"{printed.name} | {real.name}",
            printed.predicted,
            real.predicted,
            nothing,
            nothing,
            {"flat printed": printed.facts["flat"], "flat real": real.facts["flat"]},
        )
        for printed, real in pairs
    ]


def main(words: list[str]) -> None:
    """Measure as the command line says and print the table; ScenesFailed at the end if some scenes failed."""
    refuse_several_processes("spoof")
    settings = parse(SpoofSettings, words, HELP)
    record = run(settings)
    print(results_text(record))
    excluded = {bad["scene"]: bad["reason"] for one in record["runs"] for bad in one["excluded"]}
    for scene, reason in excluded.items():
        print_note(f"NOT measured: {scene}: {reason}")
    if excluded:
        raise ScenesFailed(f"{len(excluded)} scenes are not in the averages of {settings.out}: {', '.join(excluded)}")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
