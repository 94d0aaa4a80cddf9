"""What a run will cost, printed before it starts: the cost lines of all its stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megasynth_attr.core.stages import Stage

SAID_FROM_S = 600.0  # a shorter run starts without a table


def plan_text(steps: Sequence[tuple[Stage[Any], Any]], wanted: bool) -> str:
    """Return a table of what the chosen stages cost; empty for a short run unless a plan is ``wanted``."""
    lines = [line for stage, run in steps for line in stage.cost(run)]
    if not wanted and sum(line.seconds or 0.0 for line in lines) < SAID_FROM_S:
        return ""
    rows = [f"  {line}" for line in lines] or ["  these stages take little time"]
    end = ["nothing is written (plan=true)"] if wanted else []
    return "\n".join([f"stages {', '.join(stage.name for stage, _ in steps)}", *rows, *end])
