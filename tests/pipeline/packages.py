"""Packages that bring stages, as an installation leaves them: a module and its metadata in one folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path


def write_metadata(folder: Path, name: str, stages: Mapping[str, str]) -> None:
    """Write the metadata of an installed package ``name`` with these entry points; the first on the path counts."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{section} = {value}" for section, value in stages.items()]
    (info / "entry_points.txt").write_text("\n".join(["[megasynth_attr.stages]", *lines]) + "\n")


def documented() -> dict[str, str]:
    """Return the files that docs/adding-a-stage.md shows, by name: the first line of each block is its comment."""
    text = (Path(__file__).parents[2] / "docs" / "adding-a-stage.md").read_text(encoding="utf-8")
    return {name: body for name, body in re.findall(r"```(?:toml|python)\n# (\S+)\n(.*?)```", text, flags=re.S)}
