"""The command line of every training program: ``key=value`` words, YAML files, ``--help`` made from the dataclasses."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from megasynth_attr.core.codec import is_range_type
from megasynth_attr.core.errors import ConfigError, print_help
from megasynth_attr.core.keys import fill, merge, parse_words, read_yaml
from megasynth_attr.pipeline.help import section_text

Settings = TypeVar("Settings")

# short words for the keys people type most, and what they stand for: the first of these that a program declares; a
# program that declares such a key itself means its own
SHORT = {
    "data": ("data.sources",),
    "test": ("test.data",),
    "model": ("model.size",),
    "checkpoint": ("model.checkpoint",),
    "mode": ("adapter.mode",),
    "rank": ("adapter.rank",),
    "steps": ("optim.steps",),
    "lr": ("optim.lr",),
    "out": ("run.out",),
    "device": ("run.device",),
    "seed": ("run.seed", "mining.seed"),
    "workers": ("data.workers", "run.workers"),
    "attributes": ("mining.attributes", "adapter.attributes"),
    "basis": ("adapter.basis",),
    "modules": ("mining.modules",),
    "dimension": ("mining.dimension",),
    "extractor": ("mining.extractor",),
    "allocation": ("mining.allocation",),
}


@dataclass(frozen=True)
class Help:
    """The text around the keys: usage line, what the program does, examples."""

    usage: str
    explanation: str
    examples: tuple[str, ...] = ()


def parse(kind: type[Settings], words: Sequence[str], help: Help) -> Settings:
    """Return the nested dataclass ``kind`` filled from ``key=value`` words; defaults < config=file.yaml < words.

    Prints the help and raises SystemExit(0) if asked for it. Raises ConfigError for an unknown key (naming the
    nearest), a wrong type or a value outside its limits.
    """
    short = short_words(kind)
    if any(word in ("-h", "--help", "help") for word in words):
        print_help(help_text(kind, help, short))
        raise SystemExit(0)
    given = parse_words(words, short)
    layer = read_yaml(Path(str(given.pop("config")))) if "config" in given else {}
    return fill_listed(kind, merge(layer, given))


def fill_listed(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Return ``keys.fill`` of ``values`` with single ones made lists where ``kind`` wants a list: seeds=3."""
    return fill(kind, _listed(kind, values))


def short_words(kind: type) -> dict[str, str]:
    """Return the short words whose full key ``kind`` declares and that are no keys of values themselves."""
    hints = typing.get_type_hints(kind)
    found = {}
    for word, keys in SHORT.items():
        declared = [key for key in keys if _declares(hints, key)]
        if declared and (word not in hints or dataclasses.is_dataclass(hints[word])):
            found[word] = declared[0]
    return found


def _declares(hints: Mapping[str, Any], key: str) -> bool:
    section, _, name = key.partition(".")
    return dataclasses.is_dataclass(hints.get(section)) and name in typing.get_type_hints(hints[section])


def help_text(kind: type, help: Help, short: Mapping[str, str]) -> str:
    """Return the text of ``--help``."""
    parts = [f"usage: {help.usage}", help.explanation.strip()]
    parts.append("Defaults < config=file.yaml < command line. Values are YAML: data.views=[4,8] run.progress=false")
    hints = typing.get_type_hints(kind)
    sections = [f.name for f in dataclasses.fields(typing.cast(Any, kind)) if dataclasses.is_dataclass(hints[f.name])]
    flat = without_sections(kind)
    if dataclasses.fields(flat):
        parts.append(section_text("keys", "", flat, short))
    parts += [section_text(name, f"{name}.", hints[name], short) for name in sections]
    if help.examples:
        parts.append("\n".join(["examples:", *(f"  {line}" for line in help.examples)]))
    return "\n\n".join(parts)


def without_sections(kind: type) -> Any:
    """Return a dataclass with the docstring and those keys of ``kind`` that are no sections."""
    hints = typing.get_type_hints(kind)
    own = [f for f in dataclasses.fields(typing.cast(Any, kind)) if not dataclasses.is_dataclass(hints[f.name])]
    flat = dataclasses.make_dataclass("Own", [(f.name, hints[f.name], _declared(f)) for f in own], frozen=True)
    flat.__doc__ = kind.__doc__
    return flat


def _declared(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory, metadata=field.metadata)
    return dataclasses.field(default=field.default, metadata=field.metadata)


def _listed(kind: type, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return ``values`` with single ones made lists where ``kind`` wants a list: data=runs/demo.

    Nothing (out=) is empty text or an empty list where ``kind`` wants one of these, and the option null where that is
    one.
    """
    hints = typing.get_type_hints(kind)
    declared = dataclasses.fields(typing.cast(Any, kind))
    options = {f.name: f.metadata.get("options", ()) for f in declared}
    result = dict(values)
    for key, value in values.items():
        hint = hints.get(key)
        if isinstance(value, Mapping):
            if dataclasses.is_dataclass(hint):
                result[key] = _listed(typing.cast(type, hint), value, f"{prefix}{key}.")
            elif hint is not None and typing.get_origin(hint) is not dict and not is_range_type(hint):
                raise ConfigError(f"{prefix}{key} has no keys of its own, but .{next(iter(value))} is given")
        elif typing.get_origin(hint) is tuple and not isinstance(value, list):
            result[key] = [] if value is None else [value]
        elif hint is str and value is None:
            result[key] = "null" if "null" in options.get(key, ()) else ""  # the word that YAML takes for nothing
    return result
