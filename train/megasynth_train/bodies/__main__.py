"""``python -m megasynth_train.bodies``: bodies of no real person, written like published scans.

::

    <out>/bodies.json   settings, and for every body its materials
    <out>/<name>/…      one mesh (mesh_files.py)

The folder appears only when it is complete.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from megasynth_attr import __version__
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import identity_of
from megasynth_attr.core.files import json_bytes, write_durably
from megasynth_attr.core.run_folder import Kind, check
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.streams import stream
from megasynth_attr.core.temporary import replacing_folder
from megasynth_attr.textures.bank import open_bank
from megasynth_attr.textures.records import Bank
from megasynth_train.bodies.dress import check_bank, draw_outfit, dressed, paint
from megasynth_train.bodies.mesh_files import TexturedMesh, write_obj, write_ply
from megasynth_train.bodies.settings import HEADS, TWOK2K, BodySettings
from megasynth_train.bodies.shape import BodyModel

FORMAT = "megasynth-attr bodies 1"
BODIES = Kind("folder of bodies", "bodies.json", FORMAT)
SOURCE = "Anny (Apache-2.0) with shapes and poses of MakeHuman (CC0)"
_STREAM = "megasynth-attr bodies 1"  # raising it changes every body
_HEAD = ("head", "neck", "eye")

HELP = Help(
    usage="python -m megasynth_train.bodies out=FOLDER [key=value ...]",
    explanation=(
        "Makes clothed human-like bodies of no real person and writes them like published scans, to try the layout\n"
        "scan, the human protocols and the spoof test without licensed data. The first run on a machine takes some\n"
        "minutes longer: the package anny unpacks its data into ~/.cache/anny (790 MB)."
    ),
    examples=(
        "python -m megasynth_train.bodies out=runs/bodies count=12",
        "python -m megasynth_train.bodies out=runs/bodies_ply layout=twok2k count=4 first=100",
        "python -m megasynth_train.bodies out=runs/heads layout=heads count=8",
    ),
)


def run(settings: BodySettings) -> dict[str, Any]:
    """Make the bodies and return what bodies.json holds.

    Raises, with nothing written, ConfigError, DatasetError (the bank), EnvironmentProblem (anny is missing, full disk)
    or Interrupted after a signal.
    """
    settings.check()
    out = Path(settings.out).resolve()
    check(out, BODIES)
    with (
        StopRequest(advice="nothing has been written; run the same command again") as stop,
        tempfile.TemporaryDirectory() as cache,
        replacing_folder(out, "the bodies") as work,
    ):
        bank = open_bank(settings.bank, cache_dir=Path(cache), size_px=256)
        check_bank(bank, settings.bank)
        model = BodyModel()
        bodies = {}
        for number in tqdm(range(settings.first, settings.first + settings.count), desc="bodies", unit="body"):
            stop.check()
            name = f"{number:05d}" if settings.layout == TWOK2K else f"{number:04d}"
            bodies[name] = _write(work / name, name, model, bank, settings, number)
        record = {
            "format": FORMAT,
            "version": __version__,
            "source": SOURCE,
            "settings": identity_of(settings) | {"out": ""},
            "bank": bank.identity,
            "bodies": bodies,
        }
        write_durably(work / BODIES.record, json_bytes(record))
    return record


def _write(
    folder: Path, name: str, model: BodyModel, bank: Bank, settings: BodySettings, number: int
) -> dict[str, Any]:
    """Make one body, write it into the new ``folder``, and return its record."""
    key = f"{_STREAM}|seed={settings.seed}|body={number}"
    body = model.draw(stream(f"{key}|shape"))
    outfit = draw_outfit(stream(f"{key}|outfit"), body, bank, settings.texture_px)
    texture = paint(body, outfit, settings.texture_px)
    mesh = TexturedMesh(dressed(body, outfit.offset), body.faces, body.uv, body.face_uv, texture)
    if settings.layout == HEADS:
        mesh = mesh.part(body.face_of(_HEAD))
    folder.mkdir()
    (write_ply if settings.layout == TWOK2K else write_obj)(folder, name, mesh)
    return {"materials": [name for _, name in sorted(outfit.materials.items())]}


def main(words: list[str]) -> None:
    """Make the bodies that the command line asks for."""
    settings = parse(BodySettings, words, HELP)
    record = run(settings)
    print(f"{len(record['bodies'])} bodies in the layout {settings.layout}: {settings.out}")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
