"""Runs inside Blender, started by blender_runtime.py with a folder that holds jobs.json."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

if __name__ == "__main__":
    from megasynth_attr.blender.bootstrap import find_packages

    find_packages()
    from blender_work import main

    main(Path(sys.argv[-1]))
