"""Render datasets with the Blender that runs this file.

    blender -b --factory-startup --python-exit-code 1 -P blender_scripts/render.py -- preset=geometry scenes=0-1

The words after ``--`` are those of ``python -m megasynth_attr.pipeline`` (``--help`` lists them); by default only the
stage ``generate`` runs. The Blender started here only schedules: it starts further Blender processes, which render.
Also runs as ``python blender_scripts/render.py preset=geometry`` in an environment with the bpy module.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def find_project() -> None:
    """Make ``megasynth_attr`` importable: it lies beside this folder (checkout) or around it (installed wheel)."""
    for folder in (HERE.parent, HERE.parent.parent):
        if (folder / "megasynth_attr" / "__init__.py").is_file():
            sys.path.insert(0, str(folder))
            return
    sys.exit(f"{HERE}: no folder megasynth_attr beside blender_scripts; run this file from a complete checkout")


def main() -> int:
    """Return the exit code of the pipeline, see ``--help``."""
    find_project()
    from megasynth_attr.core.early import begin_program

    begin_program()  # before the slow imports
    bpy = sys.modules.get("bpy")  # Blender has imported it; plain Python has not, and the scheduler does not need it
    binary = bpy.app.binary_path if bpy is not None else ""
    own = ["stages=generate"]
    if binary:
        from megasynth_attr.blender.bootstrap import find_packages

        find_packages()
        own.append(f"blender={binary}")
    from megasynth_attr.core.errors import run_main
    from megasynth_attr.pipeline.__main__ import main as pipeline

    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else [] if binary else sys.argv[1:]
    return run_main(pipeline, [*own, *words])


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Blender turns every SystemExit into its own exit code
