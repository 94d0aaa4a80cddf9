"""Declaring settings: a default, what it means, its unit and its limits, in one line each.

The same declaration serves the type check, the range check and ``--help``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.streams import Scope

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
) -> Any:
    """Return a dataclass field. Limits apply to a number or to every number of a tuple; options to a string.

    ``short`` is a word that stands for the key on the command line. ``literal`` is for lists of paths: every word for
    the key is one item, taken exactly as typed.
    """
    meta = {"help": help, "minimum": minimum, "maximum": maximum, "options": tuple(options)}
    meta |= {"short": short, "literal": literal}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def span(low: float, high: float, help: str, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    """Return a field for a range [low, high]; low ≤ high is checked."""
    return dataclasses.field(
        default=(low, high),
        metadata={"help": help, "minimum": minimum, "maximum": maximum, "options": (), "span": True},
    )


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


def check(settings: Any, where: str) -> None:
    """Raise ConfigError for the first value of ``settings`` outside its limits; ``where`` is its key prefix."""
    for field in dataclasses.fields(settings):
        value, meta = getattr(settings, field.name), field.metadata
        key = f"{where}.{field.name}" if where else field.name
        if dataclasses.is_dataclass(value):
            check(value, key)
            continue
        numbers = value if isinstance(value, tuple | list) else [value]
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if number != number or number in (float("inf"), float("-inf")):
                raise ConfigError(f"{key}={_shown(value)}: only finite numbers are possible")
            if meta.get("minimum") is not None and number < meta["minimum"]:
                raise ConfigError(f"{key}={_shown(value)}: must be at least {meta['minimum']}")
            if meta.get("maximum") is not None and number > meta["maximum"]:
                raise ConfigError(f"{key}={_shown(value)}: must be at most {meta['maximum']}")
        if meta.get("span") and value[0] > value[1]:
            raise ConfigError(f"{key}={_shown(value)}: the range is empty, its first number must not exceed its second")
        if meta.get("options") and value not in meta["options"]:
            raise ConfigError(f"{key}={value}: must be one of {', '.join(meta['options'])}")


def _shown(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, tuple | list) else str(value)
