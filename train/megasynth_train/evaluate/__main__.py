"""``python -m megasynth_train.evaluate``: how well a model reconstructs scenes of known geometry.

::

    <out>/results.json          every number with settings, units, hashes (results.py)
    <out>/results.md            the tables, also printed
    <out>/pictures/<dataset>/<scene>.png  point clouds, depth and cameras beside the truth (pictures.py)
    <out>/index.html            the interactive page of the point clouds (page.py)

The folder appears only when it is complete.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, DatasetError, ScenesFailed, print_note, run_main
from megasynth_attr.core.files import json_bytes, sha256_of, storage_errors, write_durably
from megasynth_attr.core.machine import refuse_several_processes
from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_attr.core.run_folder import Kind, check
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.temporary import replacing_folder
from megasynth_train.adapters import load_adapter
from megasynth_train.adapters.stock import is_stock, stock_digest
from megasynth_train.adapters.storage import RECORD
from megasynth_train.evaluate.inputs import Selection, select_scenes
from megasynth_train.evaluate.options import EvaluateSettings
from megasynth_train.evaluate.page import INDEX, Cloud, PageScene, write_point_page
from megasynth_train.evaluate.pictures import save_picture
from megasynth_train.evaluate.results import FORMAT, results_record, results_text
from megasynth_train.evaluate.run import SceneEvaluation, evaluate_scenes, facts
from megasynth_train.training.arithmetic import choose_arithmetic
from megasynth_train.training.base_model import base_model
from megasynth_train.training.processes import make_accelerator
from megasynth_train.vggt.checkpoint import weights_hash
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.model import VGGT
from megasynth_train.vggt.precision import set_backends

RESULTS, TABLES, PICTURES = "results.json", "results.md", "pictures"
EVALUATION = Kind("evaluation", RESULTS, FORMAT)
BEGINS_ANEW = "nothing has been written; run the same command again to start over"

HELP = Help(
    usage="python -m megasynth_train.evaluate data=FOLDER out=FOLDER [key=value ...]",
    explanation=(
        "Predicts scenes of known geometry and measures point clouds, depth and cameras: results.json, results.md,\n"
        "pictures/, index.html. Scenes that cannot be evaluated are listed and left out of the averages (exit code 3)."
    ),
    examples=(
        "python -m megasynth_train.evaluate data=runs/demo model=vggt-tiny adapter=runs/tiny/adapter out=runs/eval",
        "python -m megasynth_train.evaluate data=runs/texture/texture_00 checkpoint=facebook/VGGT-1B "
        "adapter=runs/lora/adapter split=validation out=runs/lora_eval",
    ),
)


def run(settings: EvaluateSettings) -> dict[str, Any]:
    """Evaluate as ``settings`` say, write the folder ``out``, and return what results.json holds.

    Raises, with nothing written, ConfigError, DatasetError (a model that does not fit, no scene that can be evaluated),
    EnvironmentProblem (no GPU, full disk, a missing library) or Interrupted after a signal.
    """
    settings.check()
    if settings.pictures or settings.page:
        require_report_libraries()
    out = Path(settings.out).resolve()
    _check_replaceable(out)
    with StopRequest(patient=False, advice=BEGINS_ANEW):
        selection = select_scenes(settings)
        device = make_accelerator(settings.device).device
        set_backends(settings.threads)
        model, described = load_model(settings, device)
        # from here on SciPy's threads run; an exception in the signal handler would free memory they still use
        with StopRequest(advice=BEGINS_ANEW) as stop, replacing_folder(out, "the evaluation") as work:
            record = evaluate_into(work, model, described, selection, device, settings, stop.check)
    return record


def load_model(settings: EvaluateSettings, device: torch.device) -> tuple[VGGT, dict[str, Any]]:
    """Return the model with its adapter, and its record for results.json."""
    notes: list[str] = []
    arithmetic = choose_arithmetic(settings.model, named_config(settings.model.size), device)
    base = base_model(settings.model, notes)
    model, digest, adapter, mode = base, "", "", ""
    if settings.adapter:
        folder = Path(settings.adapter)
        adapted = load_adapter(base, folder, settings.basis)
        model, mode = adapted.model, adapted.mode
        adapter = stock_digest(folder) if is_stock(folder) else sha256_of(folder / RECORD)
        notes += adapted.notes
        digest = "" if mode == "full" else adapted.base.weights_sha256
    if mode != "full":  # mode=full replaces all weights, so notes on the base do not apply
        for note in notes:
            print_note(note)
    print_note(str(arithmetic))
    described = {
        "size": settings.model.size,
        "checkpoint": settings.model.checkpoint,
        "weights_sha256": digest or weights_hash(model),
        "adapter": settings.adapter,
        "adapter_mode": mode,
        # of adapter.json, which holds the checksums of the adapter's files; without it, of PEFT's files
        "adapter_record_sha256": adapter,
        "precision": arithmetic.precision,
    }
    arithmetic.apply(model.requires_grad_(False))
    return model, described


def evaluate_into(
    work: Path,
    model: VGGT,
    described: dict[str, Any],
    selection: Selection,
    device: torch.device | str,
    settings: EvaluateSettings,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write everything into the folder ``work`` and return the record; DatasetError if no scene can be evaluated.

    ``check`` is called often and may raise in order to stop.
    """
    shown: list[PageScene] = []

    def keep(scene: SceneEvaluation) -> None:
        if settings.pictures:
            file = work / PICTURES / f"{scene.name}.png"
            with storage_errors("a picture", work):
                file.parent.mkdir(parents=True, exist_ok=True)
                save_picture(file, scene)
        if settings.page and len(shown) < settings.page_scenes:
            shown.append(_page_scene(scene))

    for note in selection.notes:
        print_note(note)
    bar = tqdm(selection.scenes, desc="evaluate", unit="scene", disable=not settings.progress)
    scenes, bad = evaluate_scenes(model, bar, device, settings, keep, check)
    for scene in scenes:
        if "warning" in scene:
            print_note(f"{scene['name']}: {scene['warning']}")
    excluded = [*selection.unreadable, *bad]
    if not scenes:
        raise DatasetError(
            f"none of the {len(excluded)} scenes can be evaluated; the first, {excluded[0].scene}: {excluded[0].reason}"
        )
    data = {"sources": list(settings.data), "fingerprint": selection.fingerprint}
    record = results_record(scenes, excluded, to_plain(replace(settings, out="")), described, data)
    with storage_errors("the results", work):
        write_durably(work / TABLES, results_text(record).encode())
        write_durably(work / RESULTS, json_bytes(record))
    if settings.page:
        check()
        write_point_page(work, shown)
    check()
    return record


def _page_scene(scene: SceneEvaluation) -> PageScene:
    return PageScene(
        scene.name,
        Cloud(scene.predicted_points.astype("float32"), scene.colours),
        Cloud(scene.true_points.astype("float32"), scene.colours),
        scene.predicted_cameras,
        scene.true_cameras,
        facts(scene.numbers),
    )


def _check_replaceable(out: Path) -> None:
    """Raise ConfigError unless ``out`` is free or holds only an evaluation, because it is replaced as a whole."""
    check(out, EVALUATION)
    inside = {path.name for path in out.iterdir()} if out.exists() else set()
    if foreign := sorted(inside - {RESULTS, TABLES, PICTURES, INDEX}):
        raise ConfigError(
            f"out={out} holds {foreign[0]}, which is no part of an evaluation and would be lost; choose another "
            f"folder, e.g. out={out / 'evaluation'}"
        )


def main(words: list[str]) -> None:
    """Evaluate as the command line says and print the tables; ScenesFailed at the end if some scenes failed."""
    refuse_several_processes("evaluate")
    settings = parse(EvaluateSettings, words, HELP)
    record = run(settings)
    print(results_text(record))
    excluded = record["excluded"]
    for bad in excluded:
        print_note(f"NOT evaluated: {bad['scene']}: {bad['reason']}")
    print(f"{record['scenes_evaluated']} scenes evaluated, {len(excluded)} not: {settings.out}")
    if excluded:
        raise ScenesFailed(
            f"{len(excluded)} scenes are not in the averages of {settings.out}: "
            f"{', '.join(bad['scene'] for bad in excluded)}; fix them, or leave them out with scenes="
        )


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
