"""A section of ``--help``: every key of a dataclass with its default, type, limits and meaning."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import Field, is_dataclass
from typing import Any

from megasynth_attr.core.codec import field_to_plain, plain_text
from megasynth_attr.core.command.keys import declared, default_of, is_required, type_text

NO_BREAK = "\u00a0"  # keeps two words on one line


def section_text(name: str, prefix: str, kind: Any, short: Mapping[str, str]) -> str:
    """Return a section of ``--help``: every own key of the dataclass ``kind``, with ``prefix`` before its name.

    Empty for a dataclass that only holds sections.
    """
    docstring = " ".join((kind.__doc__ or "").split())
    title = f"{name}: {docstring}" if docstring and not docstring.startswith(f"{kind.__name__}(") else f"{name}:"
    entries = [
        _entry(f"{prefix}{one.name}", one, hint, short) for one, hint in declared(kind) if not is_dataclass(hint)
    ]
    return "\n".join([_wrapped(title, ""), *entries]) if entries else ""


def _entry(key: str, field: Field[Any], hint: Any, short: Mapping[str, str]) -> str:
    """Return a key's two lines: default, type and limits; meaning and short word."""
    default = "" if is_required(field) else plain_text(field_to_plain(field, default_of(field)))
    facts = [*(["required"] if is_required(field) else []), type_text(hint, field.metadata), *_limits_text(field)]
    words = [word for word, full in short.items() if full == key]
    meaning = field.metadata.get("help", "")
    also = f"; short:{NO_BREAK}{words[0]}=" if words and f"{words[0]}=" not in meaning else ""
    return f"  {key}={default}   ({', '.join(facts)})\n{_wrapped(meaning + also, '      ')}"


def _wrapped(text: str, indent: str) -> str:
    width = min(120, shutil.get_terminal_size((120, 24)).columns)
    filled = textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return filled.replace(NO_BREAK, " ")


def _limits_text(field: Field[Any]) -> list[str]:
    low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
    if low is not None and high is not None:
        return [f"{low:g} to {high:g}"]
    return [f"{word} {limit:g}" for word, limit in (("at least", low), ("at most", high)) if limit is not None]
