"""Numbers, sizes and lists in words, as every page, table and message of the project writes them."""

from __future__ import annotations

from collections.abc import Sequence

THIN_SPACE = "\u202f"  # between thousands


def duration_text(seconds: float) -> str:
    """Return a duration for people: 45 s, 3 min 20 s, 5 h 10 min, 2 d 4 h."""
    whole = round(seconds)
    for unit, size, small_unit, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small} {small_unit}"
    return f"{whole} s"


def hours_text(hours: float) -> str:
    """Return hours for people: 0.4, 12, 1,480."""
    return f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}"


def size_text(count: float) -> str:
    """Return a number of bytes in powers of 1000: 999 B, 12.3 kB, 120 MB, 4.5 TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def number_text(value: float) -> str:
    """Return a number with its thousands apart: 12 345."""
    return f"{value:,}".replace(",", THIN_SPACE)


def count_text(count: int, word: str) -> str:
    """Return "1 scene", "2 scenes", "12 345 scenes"."""
    return f"{number_text(count)} {word}{'' if count == 1 else 's'}"


def in_words(items: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    items = list(items)
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
