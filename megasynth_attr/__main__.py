"""``megasynth-attr PROGRAM key=value …``, also as ``python -m megasynth_attr``: see core/command/console.py."""

from __future__ import annotations

import sys
from pathlib import Path

from megasynth_attr.core.early import begin_program


def main() -> int:
    """Run the program that the command line names and return its exit code."""
    begin_program()
    from megasynth_attr.core.command.console import run_console  # imports NumPy

    return run_console("megasynth_attr", Path(__file__).parent)


if __name__ == "__main__":
    sys.exit(main())
