"""A text read as the type of its key: text, whole number, number, true or false, or lists and tables of these."""

from __future__ import annotations

import math
import re
import types
import typing
from typing import Any

import yaml
from yaml.composer import ComposerError

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class _Brackets(yaml.BaseLoader):
    """YAML that leaves every scalar a text, without aliases: a few of them stand for any number of items."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(None, None, "aliases, *name, are not read; put the text in quotes", None)
        return super().compose_node(parent, index)


class Unreadable(ValueError):
    """A text that its type does not allow; the message says what is allowed, the caller names the key."""


def read_text(kind: Any, text: str) -> Any:
    """Return ``text`` as plain data of the type ``kind``; raises Unreadable if it cannot be read as one.

    Text is returned as it is. Lists and tables use YAML's brackets and quotes, and each item is read as its own type;
    a single item may stand without brackets, and is returned without a list.
    """
    if kind is str or kind is Any:
        return text
    if kind in _READERS:
        return _READERS[kind](text)
    if (inner := without_none(kind)) is not kind:
        return None if text == "null" else read_text(inner, text)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if text.startswith(("[", "{")):
        return read_tree(kind, _brackets(text))
    return read_text(args[0], text) if origin is tuple else _untyped(text)


def read_tree(kind: Any, data: Any) -> Any:
    """Return lists and tables with the texts in them read as ``kind`` says, for brackets and for YAML files.

    >>> read_tree(tuple[int, ...], ["010", 2]), read_tree(float, "1e-3"), read_tree(str, "007")
    ([10, 2], 0.001, '007')
    """
    kind = without_none(kind)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if isinstance(data, str):
        return read_text(args[0] if origin is tuple else kind, data) if origin in (None, tuple) else _untyped(data)
    if isinstance(data, list):
        each = args if origin is tuple and args[-1] is not Ellipsis and len(args) == len(data) else args[:1] * len(data)
        items = each if origin is tuple else [None] * len(data)
        return [read_tree(item, one) for item, one in zip(items, data, strict=True)]
    if isinstance(data, dict):
        return {str(key): read_tree(args[1] if origin is dict else None, value) for key, value in data.items()}
    return data


def without_none(kind: Any) -> Any:
    """Return X for the type ``X | None``, any other type as it is."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    (inner,) = [a for a in typing.get_args(kind) if a is not type(None)]
    return inner


def _untyped(text: str) -> Any:
    """Return a text inside a value of some other type as a number if it reads as one, else as it is."""
    if _WHOLE.fullmatch(text):
        return _whole(text)
    return _number(text) if _NUMBER.fullmatch(text) else text


def _brackets(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Brackets)
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or type(error).__name__
        raise Unreadable(f"the brackets cannot be read ({problem}); write lists as [a,b]") from None


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise Unreadable("expected a whole number in decimal digits, e.g. 12")
    try:
        return int(text)
    except ValueError:  # Python reads 4300 digits at most
        raise Unreadable("this whole number has too many digits") from None


def _number(text: str) -> float:
    if text.lower().strip("+-") in ("inf", "infinity", "nan"):
        raise Unreadable("only finite numbers are allowed")
    if not _NUMBER.fullmatch(text):
        raise Unreadable("expected a finite number, e.g. 0.5 or 1e-3")
    number = float(text)
    if not math.isfinite(number):
        raise Unreadable("only finite numbers are allowed")
    return number


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise Unreadable("write true or false")
    return text.lower() == "true"


_READERS: dict[Any, Any] = {int: _whole, float: _number, bool: _truth, None: _untyped}
