"""``python -m megasynth_train.mine``: from a cluster of adapters to the subspace of every attribute.

subspace/result_folder.py lists what ``out`` then holds. Running the same command again continues, or finds it done.
"""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.machine import refuse_several_processes
from megasynth_attr.core.pages.chapters import write_chapter
from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_attr.core.stop import StopRequest
from megasynth_train.subspace import mining, result_folder
from megasynth_train.subspace.allocation import weight_effective_rank
from megasynth_train.subspace.analysis import FILE, Analysis, read_analysis, write_analysis
from megasynth_train.subspace.figures import chapter, summary, write_report
from megasynth_train.subspace.layer_file import layer_file, read_rows
from megasynth_train.subspace.mine_layer import WHOLE
from megasynth_train.subspace.peft_updates import BaseWeights
from megasynth_train.subspace.settings import MineRunSettings, MiningSettings, check_centre
from megasynth_train.subspace.updates import Cluster, check_means, check_minable, open_cluster
from megasynth_train.training.settings import ModelSettings

HELP = Help(
    usage="python -m megasynth_train.mine cluster=FOLDER out=FOLDER [key=value ...]",
    explanation=(
        "Finds, for every attribute and layer, the directions in which the cluster's adapters changed the model.\n"
        "Writes one basis file per attribute, one with all of them side by side (all.safetensors), and analysis.json\n"
        "with spectra, angles, overlaps and what chance would give, drawn in report/index.html. cluster= is a folder\n"
        "of python -m megasynth_train.cluster, or one with PEFT adapters in folders named <attribute>_<number>;\n"
        "cluster=[FOLDER,FOLDER] takes several of one base model, such as the same datasets with other seeds."
    ),
    examples=(
        "python -m megasynth_train.mine cluster=runs/loras out=runs/subspaces dimension=16",
        "python -m megasynth_train.mine cluster=runs/loras out=runs/joint extractor=joint allocation=null workers=8",
        "python -m megasynth_train.mine cluster=runs/loras out=runs/attn attributes=[texture,geometry] modules='.*qkv'",
    ),
)
_ATTRIBUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")  # it names a file


@dataclass(frozen=True)
class MineSettings:
    """All keys of ``python -m megasynth_train.mine``."""

    cluster: tuple[str, ...] = setting((), "folder with the adapters, or several: the same base, other seeds")
    out: str = setting("", "folder for the bases and the analysis")
    model: ModelSettings = field(default_factory=ModelSettings)
    mining: MiningSettings = field(default_factory=MiningSettings)
    run: MineRunSettings = field(default_factory=MineRunSettings)


@dataclass(frozen=True)
class MiningResult:
    """The files of a finished run; ``report`` is None if none was asked for."""

    out: Path
    analysis: Analysis
    bases: dict[str, Path]  # by attribute
    concatenated: Path
    report: Path | None
    already_done: bool


def run(settings: MineSettings) -> MiningResult:
    """Mine the cluster and return what was found; ConfigError or DatasetError for what cannot be mined.

    Raises Interrupted if a signal asks to stop; running with the same settings then continues.
    """
    started = time.monotonic()
    for key in ("cluster", "out"):
        if not getattr(settings, key):
            raise ConfigError(f"{key}= is missing, e.g. cluster=runs/loras out=runs/subspaces")
    if settings.run.figures:
        require_report_libraries()
    out = Path(settings.out).resolve()
    for folder in settings.cluster:
        if Path(folder).resolve() in (out, *out.parents):
            raise ConfigError(f"out={settings.out} lies inside cluster={folder}; choose a folder beside it")
    check_centre(settings.mining.centre, settings.mining.extractor)
    result_folder.check_is_ours(out)
    with StopRequest() as stop:
        cluster, base_ranks = _opened(settings)
        identity = _identity(settings.mining, cluster)
        stop.check()
        with result_folder.held(out, identity) as done:
            if not done:
                result_folder.begin(out, to_plain(settings), identity)
                mining.mine_layers(cluster, settings.mining, base_ranks, settings.run, out, stop)
                _write_results(cluster, settings.mining, out, started, stop)
            analysis = read_analysis(out)
            report = _write_report(analysis, out) if settings.run.figures else None
            stop.check()
            files = _basis_files(cluster, out)
            if not done:
                result_folder.finish(out, identity, [out / FILE, *files.values()])
            result_folder.clear(out, identity)
    return MiningResult(out, analysis, files, files.pop(WHOLE), report, done)


def _opened(settings: MineSettings) -> tuple[Cluster, dict[str, float]]:
    """Return the checked cluster, and the base weights' effective ranks if the allocation uses them.

    The base model is loaded if a key names it: DoRA's updates and allocate_from=base depend on it.
    """
    mining_settings = settings.mining
    from_base = mining_settings.allocate_from == "base"
    base = None
    if settings.model != ModelSettings():
        base = _base_weights(settings.model)
    elif from_base:
        raise ConfigError("allocate_from=base needs the base model: name it, e.g. checkpoint=facebook/VGGT-1B")
    cluster = open_cluster(settings.cluster, mining_settings.attributes, mining_settings.modules, base)
    check_minable(cluster)
    check_means(cluster, mining_settings.centre)
    for attribute in cluster.attributes:
        if attribute == WHOLE or not _ATTRIBUTE.fullmatch(attribute):
            raise ConfigError(
                f"attribute {attribute!r} cannot name a basis file beside {WHOLE}.safetensors; rename it in the cluster"
            )
    if base is None or not from_base:
        return cluster, {}
    return cluster, {module: weight_effective_rank(base.weight(module)) for module in cluster.modules}


def _base_weights(settings: ModelSettings) -> BaseWeights:
    """Return the weights that ``settings`` name, random ones if they say so; DatasetError if they do not fit."""
    # imported here: they load PyTorch, and the processes that mine the layers import this module as their main one
    from megasynth_train.training.base_model import base_model
    from megasynth_train.vggt.checkpoint import weights_hash

    model = base_model(settings, [])
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return BaseWeights(weights_hash(model), lambda module: np.asarray(weights[f"{module}.weight"].numpy()))


def _identity(settings: MiningSettings, cluster: Cluster) -> dict[str, Any]:
    """Return everything that decides the result, named as on the command line where possible."""
    grouped = any(row.dataset not in ("", row.name) for row in cluster.adapters)
    adapters = {
        row.name: {"attribute": row.attribute, "sha256": row.sha256} | ({"dataset": row.dataset} if grouped else {})
        for row in cluster.adapters
    }
    # 0.1.0 counted the directions of the plain mean
    significant = {"significant": "normalised"} if settings.allocation == "null" else {}
    return to_plain(
        {
            "mining": {**to_plain(settings), "attributes": cluster.attributes, **significant},
            "adapters": adapters,
            "layers": {module: {"shape": shape} for module, shape in cluster.shapes.items()},
            "base": dict(cluster.base),
        }
    )


def _write_results(cluster: Cluster, settings: MiningSettings, out: Path, started: float, stop: StopRequest) -> None:
    """Write the bases and the analysis from the layers' files."""
    from megasynth_train.subspace.basis_file import write_basis  # loads PyTorch, see above

    rows = {module: read_rows(layer_file(out / result_folder.LAYERS, module)) for module in cluster.modules}
    analysis = mining.assemble_analysis(cluster, settings, rows, time.monotonic() - started)
    for name, path in _basis_files(cluster, out).items():
        stop.check()
        write_basis(path, mining.assemble_basis(name, analysis, rows, out))
    write_analysis(out, analysis)


def _basis_files(cluster: Cluster, out: Path) -> dict[str, Path]:
    return {name: out / f"{name}.safetensors" for name in (*cluster.attributes, WHOLE)}


def _write_report(analysis: Analysis, out: Path) -> Path:
    """Return the report's page, drawn unless a finished run has drawn it already."""
    page = out / result_folder.REPORT / "index.html"
    if (out / result_folder.DONE).exists() and page.is_file():
        return page
    page = write_report(analysis, out / result_folder.REPORT)
    write_chapter(out, chapter(analysis, out))
    return page


def main(words: list[str]) -> None:
    """Mine as the command line says and print what was found."""
    refuse_several_processes("mine")
    result = run(parse(MineSettings, words, HELP))
    print(summary(result.analysis))
    print(f"{'already mined' if result.already_done else 'mined'}: {result.out}")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
