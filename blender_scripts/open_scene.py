"""Open a scene file in Blender's window, or save it as a .blend file.

    blender -P blender_scripts/open_scene.py -- scene=runs/demo/texture_00/scenes/000/000000
    blender -b -P blender_scripts/open_scene.py -- scene=runs/demo/texture_00/scenes/000/000000 save=look.blend

``-- --help`` explains the rest.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Return the exit code, 0 if the scene is open or saved."""
    for folder in (HERE.parent, HERE.parent.parent):  # a checkout, or an installed wheel
        if (folder / "megasynth_attr" / "__init__.py").is_file():
            sys.path.insert(0, str(folder))
    from megasynth_attr.blender.bootstrap import find_packages

    find_packages()
    from megasynth_attr.core.errors import run_main
    from megasynth_attr.pipeline.open_scene import main as open_scene

    return run_main(open_scene, sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else [])


if __name__ == "__main__":
    code = main()
    if code:  # otherwise Blender's window stays open
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # Blender turns every SystemExit into its own exit code
