"""Where presets and assets lie: in the checkout, or inside the installed wheel."""

from __future__ import annotations

from pathlib import Path

from megasynth_attr.core.errors import EnvironmentProblem

PACKAGE_DIR = Path(__file__).resolve().parents[1]


def resource_dir(name: str) -> Path:
    """Return the folder ``presets``, ``assets`` or ``blender_scripts``.

    A wheel carries them inside the package, a checkout beside it.
    """
    for candidate in (PACKAGE_DIR / name, PACKAGE_DIR.parent / name):
        if candidate.is_dir():
            return candidate
    raise EnvironmentProblem(
        f"the folder {name}/ is neither in {PACKAGE_DIR} nor beside it; the installation is incomplete, "
        "reinstall the package or run from a full checkout"
    )
