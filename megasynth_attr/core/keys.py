"""Nested settings: ``key=value`` words and YAML files become one checked dataclass.

Every key is declared once, in a dataclass, with its default, meaning and limits (core/fields.py).
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from megasynth_attr.core.codec import from_plain, is_range_type
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.fields import check
from megasynth_attr.core.ranges import is_range_table

Settings = TypeVar("Settings")


def parse_words(words: Sequence[str], aliases: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Return nested settings from ``key=value`` words; values are YAML, a leading ``--`` is dropped.

    ``aliases`` maps short keys to full ones. Raises ConfigError for a word that is no pair or a value that is no YAML.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} is not of the form key=value, e.g. out=runs/new; --help lists the keys")
        key = aliases.get(key, key)
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"]))
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise ConfigError(f"{word!r}: the value cannot be read ({str(error).splitlines()[0]})") from None
        settings = merge(settings, typing.cast("dict[str, Any]", parsed))
    return settings


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(content).__name__}")
    return content or {}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` on top; dicts merge, everything else, ranges included, is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        replaces = is_range_table(value) or not (isinstance(old, Mapping) and isinstance(value, Mapping))
        merged[key] = value if replaces else merge(typing.cast("dict[str, Any]", old), value)
    return merged


def fill(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Return an instance of the nested dataclass ``kind`` with ``values`` over its defaults.

    Raises ConfigError for an unknown key (naming the nearest), a wrong type or a value outside its limits.
    """
    _check_keys(values, kind, kind)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(_without_ranges(kind)), values)
        assert isinstance(merged, DictConfig)
        filled = _with_default_ranges(kind, OmegaConf.to_container(merged, resolve=True))
        checked = from_plain(kind, filled, "settings")
    except ConfigKeyError as error:
        raise ConfigError(f"unknown key {error.full_key}{nearest(str(error.full_key), all_keys(kind))}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(_misfit(kind, values) or str(error).splitlines()[0]) from None
    except DatasetError as error:
        raise ConfigError(str(error).removeprefix("settings.")) from None
    check(checked, "")
    return typing.cast(Settings, checked)


def all_keys(kind: type, prefix: str = "") -> list[str]:
    """Return every key of ``kind``, nested ones with dots."""
    hints = typing.get_type_hints(kind)
    keys = []
    for field in dataclasses.fields(kind):
        keys.append(prefix + field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            keys += all_keys(hints[field.name], f"{prefix}{field.name}.")
    return keys


def nearest(word: str, known: Sequence[str]) -> str:
    """Return " (did you mean ...?)" for the nearest known word, or an empty string."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if not matches and "." in word:
        matches = difflib.get_close_matches(word.rpartition(".")[2], known, n=1, cutoff=0.4)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _check_keys(settings: Mapping[str, Any], kind: type, root: type, prefix: str = "") -> None:
    """Raise ConfigError for the first key of ``settings`` that ``kind``, a section of ``root``, does not declare."""
    hints = typing.get_type_hints(kind)
    for key, value in settings.items():
        full = f"{prefix}{key}"
        if key not in hints:
            raise ConfigError(f"unknown key {full}{nearest(full, all_keys(root))}; --help lists all keys")
        if is_range_type(hints[key]) and value is None:
            raise ConfigError(f"{full}= is empty: give it a value, or leave it out for the default")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{full}={value}: this is a section, set one of its keys, e.g. {full}.<key>=...")
            _check_keys(value, typing.cast(type, hints[key]), root, f"{full}.")


def _without_ranges(kind: type) -> type:
    """Return a copy of the dataclass ``kind`` for OmegaConf, which knows no ranges: anything, by default nothing."""
    hints = typing.get_type_hints(kind)
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            copy = _without_ranges(typing.cast(type, hint))
            fields.append((field.name, copy, dataclasses.field(default_factory=copy)))
        elif "pair" in field.metadata:
            fields.append((field.name, Any, None))
        elif field.default_factory is not dataclasses.MISSING:
            fields.append((field.name, hint, dataclasses.field(default_factory=field.default_factory)))
        else:
            fields.append((field.name, hint, field.default))
    return dataclasses.make_dataclass(kind.__name__, fields)


def _with_default_ranges(kind: type, values: Any) -> dict[str, Any]:
    """Return ``values`` with the default of every range that is not given."""
    hints, filled = typing.get_type_hints(kind), dict(values)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            filled[field.name] = _with_default_ranges(typing.cast(type, hints[field.name]), filled[field.name])
        elif "pair" in field.metadata and filled[field.name] is None:
            filled[field.name] = field.default
    return filled


def _misfit(kind: type, settings: Mapping[str, Any], prefix: str = "") -> str:
    """Return "key=value: what is wrong" for the first value that does not fit; OmegaConf's errors may name no key."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            if text := _misfit(kind, value, f"{prefix}{key}."):
                return text
            continue
        leaf = OmegaConf.create()
        OmegaConf.update(leaf, f"{prefix}{key}", value)
        try:
            OmegaConf.merge(OmegaConf.structured(_without_ranges(kind)), leaf)
        except OmegaConfBaseException as error:
            if value is None:
                return f"{prefix}{key}= is empty: give it a value, or leave it out for the default"
            return f"{prefix}{key}={value}: {str(error).splitlines()[0]}"
    return ""
