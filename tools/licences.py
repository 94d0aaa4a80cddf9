"""THIRD_PARTY.md: what ships with the project, what it needs, and the licence of each.

    python tools/licences.py            in an environment with the extras of pyproject.toml

Versions and licences are those that the installed packages declare; ``STATED`` completes what they leave out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "THIRD_PARTY.md"
SHIPPED = (
    ("assets/materials/", "recipes of the procedural materials, painted on demand", "CC0-1.0"),
    ("assets/pictures/", "synthetic portraits, drawn by `tools/portraits.py`; nobody is depicted", "CC0-1.0"),
    ("assets/models/", "weights of `vggt-tiny`, trained from random ones on frames rendered here", "Apache-2.0"),
    ("assets/farm/", "a job type for Flamenco", "Apache-2.0"),
)  # fmt: skip
# of projects whose packages do not say, or that are installed on few machines; looked up in their repositories
STATED = {
    "openexr": "BSD-3-Clause",
    "anny": "Apache-2.0 (its data: CC0-1.0)",
    "mlcroissant": "Apache-2.0",
    "open3d": "MIT",
    "flash-attn-4": "BSD-3-Clause",
    "nvidia-cutlass-dsl": "NVIDIA's own terms (not open source)",
}
SPDX = {  # of what packages write instead
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0 style",
}
HEAD = """\
# Licences

This project is licensed under Apache-2.0 ([LICENSE](LICENSE)). This file is written by `python tools/licences.py`.

## What ships with it

Neither the wheel nor the folder `assets/` holds code, fonts, pictures or weights of anybody else. Pages use the
browser's own fonts and scripts written for this project.

| folder | what | licence |
|---|---|---|
"""
NEEDED = """
## What it needs

Nothing of this ships; `pip` installs it. Versions and licences are those of the packages that were installed when this
file was written; what they in turn need is in their own metadata. Blender (`bpy`) is GPL-licensed: it renders in
processes of its own, and what it renders is yours.

| package | extra | version | licence |
|---|---|---|---|
"""


def requirements() -> dict[str, list[str]]:
    """Return by package, in the order of pyproject.toml, the extras that ask for it; "–" stands for none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, list[str]] = {}
    for extra, wanted in {"–": project["dependencies"], **project["optional-dependencies"]}.items():
        for line in wanted:
            extras = found.setdefault(re.split(r"[^\w.-]", line, maxsplit=1)[0], [])
            extras += [extra] if extra not in extras else []
    return found


def declared(package: str) -> tuple[str, str]:
    """Return version and licence of a package; LookupError if neither it nor ``STATED`` says what the licence is."""
    stated = STATED.get(package.lower(), "")
    try:
        about = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        if not stated:
            raise LookupError(f"{package} is not installed here: install all extras, or state its licence") from None
        return "–", stated
    classified = [one.rpartition(" :: ")[2] for one in about.get_all("Classifier", []) if one.startswith("License")]
    texts = [stated, about.get("License-Expression", ""), about.get("License", ""), *classified]
    short = [SPDX.get(text, text) for text in texts if text and len(text) < 120]
    if not short:
        raise LookupError(f"{package} does not declare its licence: look it up and add it to STATED")
    return about["Version"].partition("+")[0], short[0]


def lines() -> Iterator[str]:
    """Yield the rows of both tables, each with the text before it."""
    yield HEAD
    yield from (f"| `{folder}` | {what} | {licence} |\n" for folder, what, licence in SHIPPED)
    yield NEEDED
    for package, extras in sorted(requirements().items(), key=lambda one: one[0].lower()):
        version, licence = declared(package)
        yield f"| {package} | {', '.join(extras)} | {version} | {licence} |\n"


def main() -> None:
    """Write the file."""
    FILE.write_text("".join(lines()), encoding="utf-8")


if __name__ == "__main__":
    main()
