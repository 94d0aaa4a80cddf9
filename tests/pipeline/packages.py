"""Packages that bring stages, as an installation leaves them: a module and its metadata in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_metadata(folder: Path, name: str, stages: Mapping[str, str]) -> None:
    """Write the metadata of an installed package ``name`` with these entry points; the first on the path counts."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{section} = {value}" for section, value in stages.items()]
    (info / "entry_points.txt").write_text("\n".join(["[megasynth_attr.stages]", *lines]) + "\n")


SHARPNESS = '''\
"""Says how sharp the pictures of every dataset are."""

from dataclasses import dataclass

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import setting
from megasynth_attr.core.files import json_bytes
from megasynth_attr.core.pages.chapters import Chapter, write_chapter
from megasynth_attr.core.stages import CostLine, Stage, StageGroup, StageRun, read_section
from megasynth_attr.core.temporary import replace_atomically


@dataclass(frozen=True)
class Keys:
    """How sharpness is measured."""

    radius_px: int = setting(3, "radius of the filter", minimum=1)


def keys(run: StageRun) -> Keys:
    return read_section(Keys, run.section, run.values)


def check(run: StageRun) -> None:
    if keys(run).radius_px % 2 == 0:
        raise ConfigError("sharpness.radius_px: must be odd")


def cost(run: StageRun) -> list[CostLine]:
    return [CostLine("sharpness", f"{len(run.datasets)} datasets at radius {keys(run).radius_px}", 1000.0)]


def measure(run: StageRun) -> None:
    folder = run.folder("measured")
    folder.mkdir(parents=True, exist_ok=True)
    record = {"radius_px": keys(run).radius_px, "datasets": list(run.datasets), "downstream": list(run.downstream)}
    replace_atomically(folder / "sharpness.json", json_bytes(record))
    write_chapter(folder, Chapter(title="Sharpness", lead="All pictures are sharp."))


STAGES = StageGroup(
    (
        Stage("sharpness", "measure how sharp pictures are", measure, check=check, cost=cost, chapter="measured",
              question="Are the pictures sharp?"),
        Stage("blur", "needs what is not there", measure, after=("sharpness",), needs=("no_such_module",),
              install="pip install blur"),
    ),
    sections={"sharpness": Keys},
)
'''

PYPROJECT = """\
[build-system]
requires = ["setuptools>=70"]
build-backend = "setuptools.build_meta"

[project]
name = "sharpness"
version = "1.0"

[project.entry-points."megasynth_attr.stages"]
sharpness = "sharpness:STAGES"

[tool.setuptools]
py-modules = ["sharpness"]
"""
