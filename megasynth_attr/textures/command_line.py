"""key=value arguments for the small commands of this folder, checked against a dataclass of options."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import yaml

from megasynth_attr.core.errors import ConfigError, print_help

Options = TypeVar("Options")


def nearest(word: str, known: Sequence[str]) -> str:
    """Return " (did you mean 'x'?)" for the known word nearest to ``word``, or the list of all when none is near."""
    close = difflib.get_close_matches(word.lower(), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(known)})"


def _comments(options: type) -> dict[str, str]:
    """Return the trailing comment of every field: it is the field's help text."""
    found = re.findall(r"^    (\w+): [^#\n]*#\s*(.+)$", inspect.getsource(options), flags=re.MULTILINE)
    return {name: text.strip() for name, text in found}


def help_text(options: type, command: str, description: str | None) -> str:
    """Return the help of a command: what it does, then every key with its type, default and meaning."""
    comments = _comments(options)
    lines = [(description or "").strip(), "", f"usage: python -m {command} key=value …", ""]
    for field in dataclasses.fields(options):
        default = "required" if field.default is dataclasses.MISSING else f"default {field.default!r}"
        lines.append(f"  {field.name:12s} {field.type!s:16s} {default}")
        lines.append(f"  {'':12s} {comments.get(field.name, '')}")
    return "\n".join(lines)


def _converted(key: str, text: str, kind: str) -> Any:
    value = yaml.safe_load(text) if kind != "str" else text
    if kind.startswith("tuple"):
        items = value if isinstance(value, list) else [] if value is None else [value]
        return tuple(str(item) for item in items)
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = {"int": int, "float": float, "bool": bool, "str": str}[kind]
    if not isinstance(value, expected) or (kind == "int" and isinstance(value, bool)):
        raise ConfigError(f"{key}={text}: expected {kind}, for example {key}={'100' if kind == 'int' else '0.5'}")
    return value


def parse_arguments(
    options: type[Options], argv: Sequence[str], command: str, description: str | None
) -> Options | None:
    """Return the options given as key=value (a leading -- is dropped), or None after printing the help.

    Raises ConfigError for an argument without =, an unknown key (the nearest is named), a wrong type or a missing key.
    """
    words = [word.removeprefix("--") for word in argv]
    if any(word in ("help", "h", "-h") for word in words):
        print_help(help_text(options, command, description))
        return None
    kinds = {field.name: str(field.type) for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is not key=value; python -m {command} --help lists the keys")
        if key not in kinds:
            raise ConfigError(f"unknown key {key!r}{nearest(key, list(kinds))}")
        try:
            given[key] = _converted(key, text, kinds[key])
        except yaml.YAMLError as error:
            raise ConfigError(f"{word}: not a value that can be read; write lists as [a,b]") from error
    try:
        return options(**given)
    except TypeError as error:
        fields = dataclasses.fields(options)  # type: ignore[arg-type]
        required = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in given]
        raise ConfigError(
            f"missing {', '.join(name + '=' for name in required)}; see python -m {command} --help"
        ) from error
