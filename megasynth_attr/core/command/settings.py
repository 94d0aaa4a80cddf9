"""Unchecked layers of settings become one checked dataclass: every key is declared once, in it (core/fields.py)."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from megasynth_attr.core.codec import from_plain, plain_text, to_plain
from megasynth_attr.core.command.keys import all_keys, declared, default_of, is_required, nearest, type_text
from megasynth_attr.core.command.layers import merge
from megasynth_attr.core.command.reading import Unreadable, read_text, read_tree, without_none
from megasynth_attr.core.command.words import Typed, shown
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.fields import check

Settings = TypeVar("Settings")


def fill(kind: type[Settings], values: Mapping[str, Any], prefix: str = "") -> Settings:
    """Return an instance of the nested dataclass ``kind`` with ``values`` over its defaults.

    Leaves of ``values`` are ``Typed`` texts of words, or what YAML or JSON holds. Raises ConfigError, naming the key
    with ``prefix`` before it, for an unknown one (and the nearest), a wrong type, a value outside its limits, or a
    required key that is missing. A dataclass whose keys decide others has a method ``settled(named, prefix)``, which is
    given the keys that were named and returns what takes its place.
    """
    filled = _filled(kind, values, prefix, functools.partial(all_keys, kind, prefix))
    check(filled, prefix.removesuffix("."))
    return typing.cast(Settings, filled)


def _filled(kind: Any, values: Mapping[str, Any], prefix: str, known: Callable[[], list[str]]) -> Any:
    """Return ``kind`` filled with ``values``, each read as its type; limits are not checked.

    ``known`` returns all keys of the program, to name the one nearest to an unknown key.
    """
    keys = declared(kind)
    if unknown := [f"{prefix}{key}" for key in values if key not in {field.name for field, _ in keys}]:
        advice = nearest(unknown[0], known())
        if unknown[0] in known():  # a file's key with dots in it
            advice = " (in a file, write the key under its section, not with dots)"
        raise ConfigError(f"unknown key {shown(unknown[0])}{advice}; --help lists all keys")
    given = {}
    for field, hint in keys:
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint):
            section = values.get(field.name, {})
            if not isinstance(section, Mapping):
                raise ConfigError(f"{key}={shown(section)}: this is a section; set one of its keys, e.g. {key}.<key>=…")
            given[field.name] = _filled(hint, section, f"{key}.", known)
        elif field.name in values:
            given[field.name] = _value(field, hint, values[field.name], key)
        elif is_required(field):
            raise ConfigError(f"{key}= is missing; --help explains the keys")
        elif "pair" not in field.metadata:  # the default of a number may be declared as 1, and is 1.0
            given[field.name] = from_plain(hint, to_plain(default_of(field)), key)
    made = kind(**given)
    settled = getattr(made, "settled", None)
    return made if settled is None else settled(values.keys(), prefix)


def _value(field: dataclasses.Field[Any], hint: Any, value: Any, key: str) -> Any:
    """Return the value of one key, read from a ``Typed`` text or from what a file holds."""
    try:
        plain = _table(field, hint, value, key) if typing.get_origin(hint) is dict else _plain(field, hint, value)
    except Unreadable as error:
        raise ConfigError(f"{key}={shown(value)}: {error}") from None
    if plain is None and without_none(hint) is hint:
        raise ConfigError(f"{key}= is empty: give it a value, or leave it out for the default")
    if plain == "" and is_required(field):
        raise ConfigError(f"{key}= is empty: give it a value")
    extra = {"pair": field.metadata["pair"]} if "pair" in field.metadata else {}
    try:
        return from_plain(hint, plain, key, **extra)
    except (DatasetError, TypeError, ValueError, OverflowError) as error:
        if isinstance(plain, Mapping) and not extra:
            raise ConfigError(f"{key} has no keys of its own, but .{next(iter(plain), '')} is given") from None
        problem = str(error).removeprefix(f"{key}={plain_text(plain)}: ") if extra else _expected(field, hint)
        raise ConfigError(f"{key}={shown(value)}: {problem}") from None


def _expected(field: dataclasses.Field[Any], hint: Any) -> str:
    quotes = "; in a YAML file it needs quotes" if hint is str else ""
    return f"expected {type_text(hint, field.metadata)}{quotes}"


def _plain(field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """Return a value as plain data of its type; None if there is none.

    What is convenient to write is understood here: one item for a list, nothing for an empty text or list, and null
    where it is one of the options.
    """
    is_list = typing.get_origin(hint) is tuple
    if isinstance(value, Typed) and field.metadata.get("literal"):
        given = value.texts
        emptied = max((i + 1 for i, text in enumerate(given) if not text), default=0)
        return list(given[emptied:])
    if isinstance(value, Typed):
        value = read_text(hint, str(value)) if hint is str or str(value) else None
    else:
        value = read_tree(hint, value)
    if value is None and hint is str:
        return "null" if "null" in field.metadata.get("options", ()) else ""
    if is_list and not isinstance(value, list | tuple):
        return [] if value is None else [value]
    return value


def _table(field: dataclasses.Field[Any], hint: Any, value: Any, key: str) -> dict[str, Any]:
    """Return a table as plain data, what is given over the default's entries."""
    if isinstance(value, Typed):
        value = read_text(hint, str(value)) if str(value) else {}
    if not isinstance(value, Mapping):
        raise Unreadable("expected a table such as {a: 1, b: 2}")
    return merge(to_plain(default_of(field)), _entries(typing.get_args(hint)[1], value, key))


def _entries(item: Any, table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the entries of a table, each read as ``item``, and those of the tables inside it."""
    plain: dict[str, Any] = {}
    for name, value in table.items():
        full = f"{key}.{name}"
        try:
            if isinstance(value, Mapping):
                plain[str(name)] = _entries(item, value, full)
            else:
                plain[str(name)] = read_text(item, str(value)) if isinstance(value, Typed) else read_tree(item, value)
        except Unreadable as error:
            raise ConfigError(f"{full}={shown(value)}: {error}") from None
    return plain
