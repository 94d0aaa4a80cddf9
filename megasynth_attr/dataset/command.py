"""``key=value`` words for the small commands of this folder: one dataclass declares keys, types, meaning and limits."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import check
from megasynth_attr.core.keys import nearest

Options = TypeVar("Options")


def parse_options(kind: type[Options], words: Sequence[str]) -> Options:
    """Return an instance of the dataclass ``kind`` (fields of type str, int or bool) from ``key=value`` words.

    A leading ``--`` is dropped. Fields whose default is None must be given. Raises ConfigError for an unknown key
    (naming the nearest), a missing or repeated one, a wrong type or a value outside its limits.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.removeprefix("--").partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} is not of the form key=value; --help lists the keys")
        if key not in hints:
            raise ConfigError(
                f"unknown key {key}{nearest(key, list(hints))}; known: {', '.join(hints)}; --help explains them"
            )
        if key in values:
            raise ConfigError(f"{key} is given twice")
        values[key] = _converted(key, text, hints[key])
    fields = dataclasses.fields(typing.cast(Any, kind))
    if missing := [f.name for f in fields if f.name not in values and f.default is None]:
        raise ConfigError(f"{missing[0]}= is missing; --help explains the keys")
    options = kind(**values)
    check(options, "")
    return options


def help_text(kind: Any, usage: str, explanation: str) -> str:
    """Return the text of ``--help``: usage, what it does, and every key with its default and meaning."""
    lines = [f"usage: {usage}", "", explanation.strip(), "", "keys:"]
    for field in dataclasses.fields(kind):
        default = "required" if field.default is None else f"default: {_as_word(field.default) or '(empty)'}"
        options = field.metadata.get("options")
        choice = f" One of {', '.join(options)}." if options else ""
        lines.append(f"  {field.name}=  {field.metadata['help']}.{choice} [{default}]")
    return "\n".join(lines)


def _converted(key: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{key}={text}: write true or false")
        return text.lower() == "true"
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"{key}={text}: expected a whole number") from None
    return text


def _as_word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
