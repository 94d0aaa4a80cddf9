"""Declaring settings: a default, what it means, its unit and its limits, in one line each.

The same declaration serves the type check, the range check and ``--help``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from megasynth_attr.core.codec import from_plain, hints_of, plain_text, to_plain
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.ranges import LogUniform, Range, Uniform
from megasynth_attr.core.streams import Scope

Recorded = TypeVar("Recorded")
REQUIRED = dataclasses.MISSING  # the default of a key that must be given


def setting(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    options: Sequence[str] = (),
    short: str = "",
    literal: bool = False,
    identity: bool = True,
    added: bool = False,
    path: str = "",
) -> Any:
    """Return a dataclass field. Limits apply to a number or to every number of a tuple; options to a string.

    ``short`` is a word that stands for the key on the command line. ``literal`` is for lists of paths: every word for
    the key is one item, taken exactly as typed. ``identity=False``: the value changes no result, or what it names is
    compared by content; it may differ when a folder is continued. ``added``: the key is younger than 0.1.0, so its
    default is left out of identities, which stay equal to those of older folders, and records may lack it. ``path``:
    "file" or "folder" if its texts name one, see ``names_path``.
    """
    meta = {"help": help, "minimum": minimum, "maximum": maximum, "options": tuple(options), "identity": identity}
    meta |= {"short": short, "literal": literal, "added": added, "path": path}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def names_path(field: dataclasses.Field[Any], text: str) -> bool:
    """Return whether ``text``, of a key declared with ``path``, is one: defaults and names of presets are none."""
    if field.metadata.get("path") == "file":
        return "/" in text or text.endswith((".yaml", ".yml", ".py"))
    return field.metadata.get("path") == "folder" and text not in ("", field.default)


def span(low: float, high: float, help: str, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    """Return a field for a continuous range, uniform unless another kind is given."""
    return range_setting(Uniform(float(low), float(high)), help, minimum=minimum, maximum=maximum)


def range_setting(
    default: Range[Any] | None, help: str, *, minimum: float | None = None, maximum: float | None = None
) -> Any:
    """Return a field for a range, typed ``Range[float]``, ``Range[int]`` or, with None for "not given", ``… | None``.

    Limits apply to every number of the range. A range given as ``[low, high]`` is of the same kind as ``default``.
    """
    pair = LogUniform if isinstance(default, LogUniform) else Uniform
    meta = {"help": help, "minimum": minimum, "maximum": maximum, "options": (), "pair": pair}
    return dataclasses.field(default=default, metadata=meta)


def scope(default: Scope = Scope.SCENE) -> Any:
    """Return the ``scope`` field every factor's settings begin with."""
    return setting(default.value, "how often this factor is drawn anew", options=[s.value for s in Scope])


def variants() -> Any:
    """Return the ``variants`` field every factor's settings have."""
    return setting(
        1,
        "with scope=dataset or experiment: this many draws, which the scenes take in turn (1: bit-equal in all scenes)",
        minimum=1,
    )


def shared_values(kind: Any, settings: Any) -> dict[str, Any]:
    """Return the values of those fields of ``settings`` that the dataclass ``kind`` has as well, by name."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name in names}


def identity_of(settings: Any) -> dict[str, Any]:
    """Return what decides a result, as plain data: all but the fields declared with ``identity=False``, and added
    fields at their defaults.
    """
    return recorded_identity(type(settings), to_plain(settings))


def recorded_identity(kind: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``identity_of`` returns, for settings of the dataclass ``kind`` that are known only as plain data."""
    hints = hints_of(kind)
    fields = dataclasses.fields(kind)
    free = {field.name for field in fields if not field.metadata.get("identity", True)}
    unchanged = {field.name: field.default for field in fields if field.metadata.get("added")}
    return {
        key: recorded_identity(hints[key], value)
        if dataclasses.is_dataclass(hints.get(key)) and isinstance(value, Mapping)
        else value
        for key, value in record.items()
        if key not in free and (key not in unchanged or value != unchanged[key])
    }


def read_part(kind: type[Recorded], record: Any, where: str) -> Recorded:
    """Return what a dataclass (a ``Part``) knows of a record; DatasetError, beginning with ``where``, for a wrong type,
    a value outside its limits, or a field that is missing.
    """
    try:
        part: Recorded = from_plain(kind, record, "")
        check(part, "")
    except (ConfigError, DatasetError) as error:
        raise DatasetError(f"{where}: {str(error).lstrip('.: ')}") from None
    return part


def check(settings: Any, where: str) -> None:
    """Raise ConfigError for the first value of ``settings`` outside its limits; ``where`` is its key prefix."""
    for field in dataclasses.fields(settings):
        value, meta = getattr(settings, field.name), field.metadata
        key = f"{where}.{field.name}" if where else field.name
        if dataclasses.is_dataclass(value) and not isinstance(value, Range):
            check(value, key)
            continue
        if isinstance(value, dict) and all(map(dataclasses.is_dataclass, value.values())):
            for name, one in value.items():
                check(one, f"{key}.{name}")
            continue
        shown = plain_text(value.plain(meta["pair"]) if isinstance(value, Range) else value)
        several = value.numbers if isinstance(value, Range) else value if isinstance(value, tuple | list) else [value]
        for number in several:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{key}={shown}: only finite numbers are allowed")
            if meta.get("minimum") is not None and number < meta["minimum"]:
                raise ConfigError(f"{key}={shown}: must be at least {meta['minimum']}")
            if meta.get("maximum") is not None and number > meta["maximum"]:
                raise ConfigError(f"{key}={shown}: must be at most {meta['maximum']}")
        if meta.get("options") and value not in meta["options"]:
            raise ConfigError(f"{key}={value}: must be one of {', '.join(meta['options'])}")
