"""Frozen dataclasses to canonical JSON and back, and the hash of that JSON.

Canonical means: sorted keys, no spaces, floats rounded to 9 decimals. Rounding makes a scene file independent of
the last bit of a platform's ``sin``; sampling must round *before* using a value (``rounded``) so that memory and
file agree exactly.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from dataclasses import MISSING
from typing import Any

import numpy as np

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.ranges import Range, range_from_plain

DECIMALS = 9
_PLAIN = (str, int, bool, type(None))


def rounded(values: Any) -> Any:
    """Return ``values`` (scalar or array-like, any shape) as Python floats in nested tuples, rounded to 9 decimals."""
    array = np.round(np.asarray(values, dtype=np.float64), DECIMALS) + 0.0  # + 0.0 turns -0.0 into 0.0

    def freeze(item: Any) -> Any:
        return tuple(freeze(i) for i in item) if isinstance(item, list) else item

    return freeze(array.tolist())


def to_plain(value: Any) -> Any:
    """Return ``value`` as dicts, lists, strings, numbers, bools and None, ready for JSON.

    ValueError for a float that is not finite, TypeError for any other type.
    """
    if type(value) in _PLAIN or (type(value) is float and math.isfinite(value)):  # nearly all: no further question
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, Range):
            return to_plain(value.plain())
        return {
            f.name: field_to_plain(f, getattr(value, f.name))
            for f in dataclasses.fields(value)
            if not f.metadata.get("younger") or getattr(value, f.name) != f.default
        }
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            raise ValueError(f"{value} cannot be stored in a scene file: only finite numbers can")
        return float(value)
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be stored in a scene file")


def younger(default: Any) -> Any:
    """Return a dataclass field that older records lack: at its default it is left out of the plain form, and so of
    hashes, which stay equal to those of older records."""
    return dataclasses.field(default=default, metadata={"added": True, "younger": True})


def field_to_plain(field: dataclasses.Field[Any], value: Any) -> Any:
    """Return the plain form of the ``value`` of a dataclass's ``field``. A range that is not given is ``[]``."""
    if "pair" not in field.metadata:
        return to_plain(value)
    return [] if value is None else to_plain(value.plain(field.metadata["pair"]))


def canonical_json(value: Any) -> str:
    """Return the canonical JSON text of a dataclass or plain value."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def content_hash(value: Any) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def from_plain(kind: Any, data: Any, where: str = "scene", pair: type[Range[Any]] | None = None) -> Any:
    """Return an instance of type ``kind`` made from JSON data, checked field by field.

    Supports dataclasses, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``, ``X | None``, ranges, str, int, float,
    bool. ``pair`` is what ``[low, high]`` stands for where a range is expected: the ``pair`` of the field's metadata.
    Raises DatasetError naming the path (``where``) of the first value that does not fit.
    """
    if type(data) is kind and kind in (str, int, float):  # nearly all values: no further question
        return data
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (kind,) = [a for a in args if a is not type(None)]
        if type(None) in args and (data is None or (data == [] and is_range_type(kind))):
            return None
        return from_plain(kind, data, where, pair)
    if is_range_type(kind):
        try:
            return range_from_plain(data, whole=args == (int,), pair=pair)
        except ValueError as error:
            raise DatasetError(f"{where}={plain_text(data)}: {error}") from None
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise DatasetError(f"{where}: expected a list, found {type(data).__name__}")
        if len(args) == 2 and args[1] is Ellipsis:
            if args[0] is float and {type(v) for v in data} <= {int, float}:
                return tuple([float(v) for v in data])  # the long arrays (heights, poses): no call per number
            return tuple([from_plain(args[0], v, f"{where}[{i}]") for i, v in enumerate(data)])
        if len(data) != len(args):
            raise DatasetError(f"{where}: expected {len(args)} values, found {len(data)}")
        return tuple([from_plain(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, data, strict=True))])
    if origin is dict:
        if not isinstance(data, dict):
            raise DatasetError(f"{where}: expected a table, found {type(data).__name__}")
        return {k: from_plain(args[1], v, f"{where}.{k}") for k, v in data.items()}
    if dataclasses.is_dataclass(kind):
        return _dataclass_from_plain(kind, data, where)
    if kind is Any:
        return data
    if kind is float and isinstance(data, int | float) and not isinstance(data, bool):
        return float(data)
    if isinstance(data, kind) and not (kind is int and isinstance(data, bool)):
        return data
    raise DatasetError(f"{where}: expected {getattr(kind, '__name__', kind)}, found {data!r}")


def is_range_type(hint: Any) -> bool:
    """Return whether ``hint`` is ``Range``, ``Range[float]`` (continuous) or ``Range[int]`` (whole numbers)."""
    return (typing.get_origin(hint) or hint) is Range


def plain_text(value: Any) -> str:
    """Return a plain value as it is written in YAML, on one line: [1,2], {log: [1,10]}, true, text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ",".join(map(plain_text, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return str(value)


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """Return the resolved types of a dataclass's fields; not to be changed."""
    return typing.get_type_hints(kind)


class Part:
    """Base of dataclasses that know a part of a record: what else it holds is ignored, defaults stand for what it
    lacks."""


def _dataclass_from_plain(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise DatasetError(f"{where}: expected an object, found {type(data).__name__}")
    hints, pairs, defaults = hints_of(kind), _pairs_of(kind), _defaults_of(kind)
    if issubclass(kind, Part):
        data = {name: data[name] for name in pairs if name in data}
    elif unknown := sorted(set(data) - set(pairs)):
        raise DatasetError(f"{where}: unknown field {unknown[0]!r}; written by another version?")
    if missing := [n for n in pairs if n not in data and n not in defaults]:
        raise DatasetError(f"{where}: field {missing[0]!r} is missing")
    return kind(**{n: from_plain(hints[n], data[n], f"{where}.{n}", pairs[n]) for n in pairs if n in data})


@functools.cache
def _pairs_of(kind: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, in order, each with the kind of range that a pair of numbers stands for."""
    return {field.name: field.metadata.get("pair") for field in dataclasses.fields(kind)}


@functools.cache
def _defaults_of(kind: Any) -> set[str]:
    """Return the fields that plain data may lack."""
    fields = dataclasses.fields(kind)
    if issubclass(kind, Part):
        return {f.name for f in fields if (f.default, f.default_factory) != (MISSING, MISSING)}
    return {f.name for f in fields if f.metadata.get("added")}
