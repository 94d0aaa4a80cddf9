"""Verification of a dataset from its files alone: ``python -m megasynth_attr.dataset.verify dataset=<dir>``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from megasynth_attr.core.codec import from_plain
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import DatasetError, EnvironmentProblem, run_main
from megasynth_attr.core.fields import REQUIRED, setting
from megasynth_attr.core.files import json_bytes, storage_errors
from megasynth_attr.core.selection import parse_indices
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.dataset import dataset_checks, paths
from megasynth_attr.dataset.findings import Finding, SceneFacts, VerifyReport
from megasynth_attr.dataset.reader import Dataset, SceneData, open_dataset, open_datasets
from megasynth_attr.dataset.scene_checks import Expected, check_scene
from megasynth_attr.scene.factor import load_plugins, loaded_plugins

DEFAULT_CLEARANCE = 0.1  # for datasets whose camera settings state none


def verify_dataset(
    path: Path,
    *,
    scenes: Sequence[int] | None = None,
    workers: int = 1,
    progress: bool = True,
    write: bool = True,
) -> VerifyReport:
    """Return what is right and wrong with a dataset, and write it to ``<dataset>/verify.json`` unless ``write`` is off.

    ``scenes`` limits it to these indices (those that exist); ``workers`` processes share the scenes. Bad data gives
    findings, never exceptions; DatasetError only if there is no dataset, EnvironmentProblem if verify.json cannot
    be written.
    """
    dataset = open_dataset(path)
    expected = expectations(dataset)
    wanted = None if scenes is None else set(scenes)
    chosen = [scene for scene in dataset.scenes if wanted is None or scene.index in wanted]
    results = _map(partial(check_scene, expected=expected), chosen, workers)
    bar = tqdm(results, total=len(chosen), desc=f"verify {dataset.name}", unit="scene", disable=not progress)
    report = _report(dataset, expected, list(bar), partial_check=scenes is not None)
    if write:
        write_verification(dataset.path, report)
    return report


def verify_and_print(path: Path, *, scenes: Sequence[int] | None = None, workers: int = 1) -> VerifyReport:
    """Return what ``verify_dataset`` returns, and print it; a dataset that cannot be written to is verified as well."""
    report = verify_dataset(path, scenes=scenes, workers=workers, write=False)
    print(report.table(), flush=True)
    try:
        write_verification(path, report)
    except EnvironmentProblem as error:  # e.g. a read-only released dataset; the verdict is the same
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        print(f"{path / paths.VERIFY_FILE} was not written: {reason}", file=sys.stderr, flush=True)
    return report


def write_verification(dataset: Path, report: VerifyReport) -> None:
    """Write ``<dataset>/verify.json``, whole or not at all; EnvironmentProblem if the dataset cannot be written to."""
    file = dataset / paths.VERIFY_FILE
    with storage_errors(paths.VERIFY_FILE, file):
        replace_atomically(file, json_bytes(report.to_record()))


def expectations(dataset: Dataset) -> Expected:
    """Return what dataset.json promises about every scene; DatasetError if it does not say."""
    config, where = dataset.recorded.config, f"{dataset.path / paths.DATASET_FILE} is damaged"
    if not (config.content.frames and config.render.width_px and config.render.height_px):
        raise DatasetError(f"{where}: the number of frames or the size of images is missing")
    camera = dataset.record["config"].get("factors", {}).get("camera", {})
    return Expected(
        attribute=dataset.attribute,
        dataset_index=dataset.dataset_index,
        width_px=config.render.width_px,
        height_px=config.render.height_px,
        frames=config.content.frames,
        layers=paths.written_layers(vars(config.write)),
        clearance=from_plain(float, camera.get("clearance", DEFAULT_CLEARANCE), f"{where}: camera.clearance"),
        depth=config.write.depth,
    )


def _map(function: Any, scenes: Iterable[SceneData], workers: int) -> Iterator[SceneFacts]:
    if workers <= 1:
        yield from map(function, scenes)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=load_plugins, initargs=(loaded_plugins(),)) as pool:
        yield from pool.map(function, scenes)


def _report(dataset: Dataset, expected: Expected, facts: list[SceneFacts], partial_check: bool) -> VerifyReport:
    findings: list[Finding] = [finding for fact in facts for finding in fact.findings]
    findings += dataset_checks.check_completeness(dataset, facts, partial_check)
    findings += dataset_checks.check_record(dataset, facts, partial_check)
    findings += dataset_checks.check_isolation(dataset, facts)
    still, unknown = dataset_checks.depth_promises(dataset)
    groups, differing, unequal = dataset_checks.check_equal_depth(facts, still)
    clipped, black, exposure = dataset_checks.check_exposure(facts)
    covisible, share, systematic, reprojection = dataset_checks.check_reprojection(facts)
    nearest = min((fact.nearest_surface for fact in facts), default=np.inf)
    names = sorted({name for fact in facts for name in fact.hashes})
    return VerifyReport(
        dataset=dataset.name,
        scenes=len(facts),
        scene_count=dataset.scene_count,
        frames=sum(fact.frames for fact in facts),
        bytes=sum(fact.bytes for fact in facts),
        findings=tuple(findings + unknown + unequal + exposure + reprojection),
        clearance_required=expected.clearance,
        nearest_surface=float(nearest) if np.isfinite(nearest) else None,
        clipped_share=clipped,
        black_share=black,
        covisible_pixels=covisible,
        agreeing_share=share,
        **asdict(systematic),
        depth_groups=groups,
        depth_compared=dict(differing),
        distinct_hashes={name: len({fact.hashes.get(name) for fact in facts if fact.hashes}) for name in names},
    )


@dataclass(frozen=True)
class Options:
    """The keys of the command."""

    dataset: str = setting(REQUIRED, "a dataset folder, or an output folder: all its datasets")
    scenes: str = setting("all", "which scenes: all, 0-9, 0,3,7; those that do not exist yet are skipped")
    workers: int = setting(1, "processes that share the scenes", minimum=1, maximum=256)
    plugins: tuple[str, ...] = setting((), "files or modules that declare further factors; none is taken from datasets")


HELP = Help(
    usage="python -m megasynth_attr.dataset.verify dataset=<dir> [scenes=0-9] [workers=4]",
    explanation="""
Reads every file of a dataset and checks: checksums, counts, finite values, camera matrices, scene hashes, that
nothing but the intended factors varies, byte-equal depth where scenes differ only in factors that cannot change it,
the distance between cameras and surfaces, exposure, and that the depth maps of different views agree. Writes
<dataset>/verify.json and prints a table; if the dataset cannot be written to, only the table is printed. Exit code 0:
the scenes that exist passed (the table says how many); 2: something is wrong, or none of the scenes exists.
""",
    examples=(
        "python -m megasynth_attr.dataset.verify dataset=runs/demo",
        "python -m megasynth_attr.dataset.verify dataset=runs/demo/texture_00 scenes=0-9 workers=4",
    ),
)


def main(words: list[str]) -> None:
    """Verify the datasets named by ``words``; DatasetError if one fails."""
    options = parse(Options, words, HELP)
    load_plugins(options.plugins)
    failed = []
    for dataset in open_datasets(Path(options.dataset)):
        chosen = None if options.scenes == "all" else parse_indices(options.scenes, dataset.scene_count, "scenes")
        if not verify_and_print(dataset.path, scenes=chosen, workers=options.workers).passed:
            failed.append(dataset.name)
    if failed:
        raise DatasetError(f"{', '.join(failed)}: verification failed; the table above says what is wrong")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
