"""What a dataclass of settings declares: its keys and sections, their short words, and the types in words."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from megasynth_attr.core.codec import hints_of, is_range_type
from megasynth_attr.core.command.reading import without_none
from megasynth_attr.core.ranges import LogUniform

_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def declared(kind: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    """Return the fields of a dataclass with their resolved types."""
    hints = hints_of(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def sections(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (prefix, dataclass) of ``kind`` itself and of every section in it, nested ones with dots, in order."""
    yield prefix, kind
    for field, hint in declared(kind):
        if dataclasses.is_dataclass(hint):
            yield from sections(hint, f"{prefix}{field.name}.")


def all_keys(kind: Any, prefix: str = "") -> list[str]:
    """Return every key and section of ``kind``, nested ones with dots, with ``prefix`` before each."""
    return [f"{before}{field.name}" for before, part in sections(kind, prefix) for field, _ in declared(part)]


def short_words(kind: Any) -> dict[str, str]:
    """Return the short words that keys of ``kind`` and its sections declare, with the full key of each.

    A key of the program's own wins over a short word, and the first section that declares one over later ones.
    """
    own = {field.name for field, hint in declared(kind) if not dataclasses.is_dataclass(hint)}
    found: dict[str, str] = {}
    for prefix, part in sections(kind):
        for field, _ in declared(part):
            short = field.metadata.get("short", "")
            if short and short not in own:
                found.setdefault(short, f"{prefix}{field.name}")
    return found


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Return whether a key has no default, so that it must be given."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a key that is not required."""
    if not isinstance(field.default_factory, dataclasses._MISSING_TYPE):
        return field.default_factory()
    return field.default


def nearest(word: str, known: Sequence[str]) -> str:
    """Return " (did you mean ...?)" for the nearest known word, or an empty string."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if not matches and "." in word:
        matches = difflib.get_close_matches(word.rpartition(".")[2], known, n=1, cutoff=0.4)
    return f" (did you mean {matches[0]}?)" if matches else ""


def type_text(hint: Any, metadata: Mapping[str, Any]) -> str:
    """Return a type in words, e.g. "whole number", "list of texts", "range [low, high], numbers"."""
    if metadata.get("options"):
        return "one of " + ", ".join(metadata["options"])
    if hint in _WORDS:
        return _WORDS[hint]
    if (inner := without_none(hint)) is not hint:
        return f"{type_text(inner, metadata)} or null"
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    noun = _WORDS.get(args[-1 if origin is dict else 0], "value") if args else "value"
    if is_range_type(hint):
        log = "log-uniform " if metadata["pair"] is LogUniform else ""
        return f"{log}range [low, high], {noun if args else 'number'}s"
    if origin is dict:
        return f"table of {noun}s"
    if origin is not tuple:
        return str(getattr(hint, "__name__", hint))
    if metadata.get("literal"):
        return "list of texts, one word each"
    return f"list of {noun}s" if args[-1] is Ellipsis else f"{len(args)} {noun}s"
