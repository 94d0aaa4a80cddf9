"""Verification of a dataset from its files alone: ``python -m megasynth_attr.dataset.verify dataset=<dir>``."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
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
from megasynth_attr.dataset.scene_checks import Expected, check_scene, depth_digests
from megasynth_attr.scene.factor import load_plugins, loaded_plugins

DEFAULT_CLEARANCE = 0.1  # for datasets whose camera settings state none
SCENES_AHEAD = 4  # of what is read from a worker: more would only fill memory


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
    chosen = (scene for scene in dataset.each_scene() if wanted is None or scene.index in wanted)
    results = _map(partial(check_scene, expected=expected), chosen, workers)
    total = sum(1 for found in paths.finished_by_thousand(path) for i in found if wanted is None or i in wanted)
    bar = tqdm(results, total=total, desc=f"verify {dataset.name}", unit="scene", disable=not progress)
    report = report_of(dataset, expected, bar, partial_check=scenes is not None)
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
        pending: deque[Future[SceneFacts]] = deque()
        for scene in scenes:
            pending.append(pool.submit(function, scene))
            if len(pending) > SCENES_AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def report_of(dataset: Dataset, expected: Expected, facts: Iterable[SceneFacts], partial_check: bool) -> VerifyReport:
    """Return the report on scenes, given one after another: none is held longer than it takes to look at it."""
    still, unknown = dataset_checks.depth_promises(dataset)
    completeness = dataset_checks.Completeness(dataset, partial_check)
    isolation = dataset_checks.Isolation(dataset)
    renderers = dataset_checks.Renderers()
    exposure = dataset_checks.Exposure()
    reprojection = dataset_checks.Reprojection()
    findings: list[Finding] = []
    scenes = size_bytes = 0
    nearest = np.inf
    with dataset_checks.EqualDepth(still) as equal_depth:
        for fact in facts:
            findings += fact.findings
            scenes, size_bytes = scenes + 1, size_bytes + fact.bytes
            nearest = min(nearest, fact.nearest_surface)
            for check in (completeness, isolation, equal_depth, renderers, exposure, reprojection):
                check.add(fact)
        groups, differing, unequal = equal_depth.compare(
            lambda index: depth_digests(SceneData(paths.scene_path(dataset.path, index)), expected)
        )
        distinct, repeated = equal_depth.distinct_hashes, equal_depth.repeated()
    findings += completeness.findings() + completeness.record_findings() + isolation.findings()
    findings += renderers.findings()
    findings += unknown + unequal + repeated + exposure.findings() + reprojection.findings()
    return VerifyReport(
        dataset=dataset.name,
        scenes=scenes,
        scene_count=dataset.scene_count,
        frames=exposure.frames,
        bytes=size_bytes,
        findings=tuple(findings),
        clearance_required=expected.clearance,
        nearest_surface=float(nearest) if np.isfinite(nearest) else None,
        clipped_share=exposure.clipped_share,
        black_share=exposure.black_share,
        covisible_pixels=reprojection.covisible,
        agreeing_share=reprojection.agreeing_share,
        **asdict(reprojection.systematic),
        depth_groups=groups,
        depth_compared=dict(differing),
        distinct_hashes=distinct,
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
