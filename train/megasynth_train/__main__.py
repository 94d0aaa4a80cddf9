"""``megasynth-train PROGRAM key=value …``, also as ``python -m megasynth_train``: see core/command/console.py."""

from __future__ import annotations

import sys
from pathlib import Path

from megasynth_attr.core.early import begin_program


def main() -> int:
    """Run the program that the command line names and return its exit code."""
    begin_program("[train]")
    from megasynth_attr.core.command.console import run_console  # imports NumPy

    return run_console("megasynth_train", Path(__file__).parent)


if __name__ == "__main__":
    sys.exit(main())
