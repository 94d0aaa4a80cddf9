"""Numbers, sizes and lists in words, as every page, table and message of the project writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

THIN_SPACE = "\u202f"  # between thousands
MINUS = "−"  # the minus sign, as wide as a plus; not a hyphen


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
    """Return a number with its thousands separated: 12 345."""
    return f"{value:,}".replace(",", THIN_SPACE)


def count_text(count: int, word: str) -> str:
    """Return "1 scene", "2 scenes", "12 345 scenes"."""
    return f"{number_text(count)} {word}{'' if count == 1 else 's'}"


def in_words(items: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    items = list(items)
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def listed(names: Iterable[str], most: int = 4) -> str:
    """Return "a, b", the first few of many names as "a, b, c, d and 3 more"."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def short(value: float | None) -> str:
    """Return a number with two or three figures, as people write it: 0.123, 12300, 2·10⁻⁵; – for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return text.replace("-", MINUS)
    mantissa, exponent = f"{value:.1e}".split("e")
    power = "".join("⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".index(c)] for c in str(int(exponent)))
    mantissa = mantissa.removesuffix(".0").replace("-", MINUS)
    return f"10{power}" if mantissa == "1" else f"{mantissa}·10{power}"


def signed_text(value: float) -> str:
    """Return a number with its sign: +0.12, −3."""
    return f"{value:+.3g}".replace("-", MINUS)


def spread_text(mean: float | None, std: float | None) -> str:
    """Return "mean ± standard deviation", the mean alone where there is no spread, – without a mean."""
    if mean is None:
        return "–"
    return f"{mean:.4g}" if std is None else f"{mean:.4g} ± {std:.2g}"


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of words as plain text in columns, the first one aligned left, the others right."""
    return "\n".join("  ".join(row).rstrip() for row in _padded(rows))


def markdown_table(rows: Sequence[Sequence[str]], *, aligned: bool = True) -> str:
    """Return a Markdown table, the first row its header; ``aligned``: its columns are padded to read as text."""
    cells = _padded(rows) if aligned else rows
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    if not aligned:
        return "\n".join([lines[0], "| " + " | ".join(["---"] + ["---:"] * (len(rows[0]) - 1)) + " |", *lines[1:]])
    first, *others = ("-" * (len(cell) + 1) for cell in cells[0])
    return "\n".join([lines[0], "|" + "|".join([f"{first}-", *(f"{rule}:" for rule in others)]) + "|", *lines[1:]])


def _padded(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
