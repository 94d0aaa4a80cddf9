"""Reading and writing the recorded values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def write(name: str, values: Any) -> None:
    text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def changed(before: Any, now: Any, where: str = "") -> list[str]:
    """Return every place where two JSON values differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        return [text for key in keys for text in changed(before.get(key), now.get(key), f"{where}/{key}")]
    return [] if before == now else [f"{where}: {before!r} → {now!r}"]
