"""Finding this project's packages from a Python that does not know them: the one inside a Blender binary.

Uses the standard library only, so that it can be imported before anything else is found.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("numpy", "scipy.spatial", "PIL", "yaml", "tqdm")
CHECKOUT = Path(__file__).resolve().parents[2]
EXIT_ENVIRONMENT = 4  # errors.ExitCode.ENVIRONMENT, which cannot be imported yet
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def find_packages() -> None:
    """Extend ``sys.path`` until the project and its packages import; otherwise say what to do and exit with code 4.

    Searched in this order: ``sys.path`` as it is, ``PYTHONPATH`` (which Blender ignores), the active virtual
    environment (``VIRTUAL_ENV``), ``.venv`` in the checkout and in the current folder. A virtual environment of another
    Python version is of no use: its compiled packages do not load.
    """
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    tried, position = [], 1
    for folder in _candidates():
        if not _missing():
            break
        tried.append(str(folder))
        if folder.is_dir() and str(folder) not in sys.path:
            # In front of Blender's own packages: an environment's SciPy fits its own NumPy, perhaps not Blender's.
            sys.path.insert(position, str(folder))
            position += 1
            importlib.invalidate_caches()
    if problem := _missing() or _broken():
        sys.stderr.write(_what_to_do(problem, tried) + "\n")
        sys.stderr.flush()
        os._exit(EXIT_ENVIRONMENT)  # sys.exit inside Blender -P would be reported as a script error, code 1


def _missing() -> str:
    """Return which packages are missing, as text; empty if none is."""
    names = sorted({name.partition(".")[0] for name in NEEDED})
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"cannot find {', '.join(missing)}" if missing else ""


def _broken() -> str:
    """Return which package does not load, and why; empty if all load."""
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            return f"cannot load {name} ({' '.join(str(error).split())})"
    return ""


def _candidates() -> Iterator[Path]:
    yield from (Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry)
    for environment in _environments():
        yield environment / "lib" / PYTHON / "site-packages"
        yield environment / "Lib" / "site-packages"


def _environments() -> Iterator[Path]:
    if "VIRTUAL_ENV" in os.environ:
        yield Path(os.environ["VIRTUAL_ENV"])
    yield CHECKOUT / ".venv"
    yield Path.cwd() / ".venv"


def _what_to_do(problem: str, tried: list[str]) -> str:
    found = {p.parent.name for e in _environments() for p in e.glob("lib/python3.*/site-packages")}
    others = ", ".join(sorted(found - {PYTHON}))
    hint = f" (there is an environment, but for {others})" if others else ""
    environment = CHECKOUT / ".venv"
    return (
        f"EnvironmentProblem: Blender's {PYTHON} {problem}{hint}; make an environment for it, "
        f"`{PYTHON} -m venv {environment} && {environment}/bin/pip install {CHECKOUT}`, or activate one first. "
        f"Looked in: {', '.join(tried) or 'sys.path only'}"
    )
