"""Which Blender renders, and the command line and environment that start it as a worker."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.machine import INSTALL_BPY
from megasynth_attr.core.resources import PACKAGE_DIR
from megasynth_attr.core.threads import counts

WORKER_FILE = PACKAGE_DIR / "farm" / "worker.py"
HOW_TO_GET_ONE = f"install Blender, {INSTALL_BPY}, or name a binary with blender=/path/to/blender"


@dataclass(frozen=True)
class Launcher:
    """How to start a worker: ``binary`` is None for the bpy module of this Python."""

    binary: Path | None

    @property
    def description(self) -> str:
        return str(self.binary) if self.binary else "bpy module"

    def command(self, descriptor: int) -> list[str]:
        """Return the command of a worker that talks through the inherited socket ``descriptor``."""
        if self.binary is None:  # -P: a file called types.py in the current folder must not break the worker
            return [sys.executable, "-P", "-m", "megasynth_attr.farm.worker", str(descriptor)]
        flags = ["-b", "-noaudio", "--factory-startup", "--python-exit-code", "1", "-P", str(WORKER_FILE)]
        return [str(self.binary), *flags, "--", str(descriptor)]

    def environment(self, scratch: Path, threads: int) -> dict[str, str]:
        """Return the worker's environment: nothing is read from the home folder, temporary files go to ``scratch``."""
        paths = [str(PACKAGE_DIR.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "TMPDIR": str(scratch)}
        if self.binary is not None and sys.prefix != sys.base_prefix:
            env["VIRTUAL_ENV"] = sys.prefix  # where a binary's own Python may find the project's packages
        settings = scratch / "blender"  # Blender looks into the home folder unless these exist
        settings.mkdir(exist_ok=True)
        env["XDG_CONFIG_HOME"] = str(settings)
        for kind in ("RESOURCES", "CONFIG", "SCRIPTS", "DATAFILES", "EXTENSIONS"):
            env[f"BLENDER_USER_{kind}"] = str(settings)
        env.pop("OCIO", None)  # a studio's colour configuration would change how textures are read
        # OpenImageDenoise has its own thread count, and pins its threads to cores: all workers to the same ones
        env["OIDN_SET_AFFINITY"] = "0"
        return env | counts(threads) | {"OIDN_NUM_THREADS": str(threads)}


def find_blender(wanted: str) -> Launcher:
    """Return the Launcher for ``blender=auto|module|<path>``; EnvironmentProblem if there is no such Blender.

    ``auto`` prefers the bpy module and then a ``blender`` on the PATH.
    """
    has_module = importlib.util.find_spec("bpy") is not None
    if wanted in ("auto", "module") and has_module:
        return Launcher(None)
    if wanted == "module":
        raise EnvironmentProblem(f"blender=module: {sys.executable} has no module bpy; {INSTALL_BPY}")
    found = shutil.which("blender" if wanted == "auto" else wanted)
    if found is None and wanted == "auto":
        raise EnvironmentProblem(f"no Blender found: no module bpy and no `blender` on the PATH; {HOW_TO_GET_ONE}")
    if found is None:
        state = "is not an executable file" if Path(wanted).exists() else "does not exist"
        raise EnvironmentProblem(f"blender={wanted} {state}; {HOW_TO_GET_ONE}")
    return Launcher(Path(found).absolute())
