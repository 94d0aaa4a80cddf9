"""Reading and writing the recorded values."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from importlib.metadata import PackageNotFoundError, version
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


def machine() -> str:
    """Return a short name of what arithmetic depends on besides the code: the processor and the libraries."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}) or lines[:1]
    for name in ("numpy", "scipy", "torch", "bpy"):
        try:
            kind.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            kind.append(f"no {name}")
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:16]


def is_close(before: float, now: float) -> bool:
    """Return whether two numbers are what two kinds of processors make of the same program."""
    return math.isclose(before, now, rel_tol=1e-3, abs_tol=1e-6)
