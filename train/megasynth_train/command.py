"""The command line of every training program: ``key=value`` words, YAML files, ``--help`` made from the dataclasses."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from megasynth_attr.errors import ConfigError
from megasynth_attr.help import section_text
from megasynth_attr.keys import fill, merge, parse_words, read_yaml

Settings = TypeVar("Settings")

# short words for the keys people type most; a program that declares such a key itself means its own
SHORT = {
    "data": "data.sources",
    "test": "test.data",
    "model": "model.size",
    "checkpoint": "model.checkpoint",
    "mode": "adapter.mode",
    "rank": "adapter.rank",
    "steps": "optim.steps",
    "lr": "optim.lr",
    "out": "run.out",
    "device": "run.device",
    "seed": "run.seed",
    "workers": "data.workers",
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
        print(help_text(kind, help, short))
        raise SystemExit(0)
    given = parse_words(words, short)
    layer = read_yaml(Path(str(given.pop("config")))) if "config" in given else {}
    return fill(kind, _listed(kind, merge(layer, given)))


def short_words(kind: type) -> dict[str, str]:
    """Return the short words whose full key ``kind`` declares and that are no keys of values themselves."""
    hints = typing.get_type_hints(kind)
    found = {}
    for word, key in SHORT.items():
        section, _, name = key.partition(".")
        declared = dataclasses.is_dataclass(hints.get(section)) and name in typing.get_type_hints(hints[section])
        if declared and (word not in hints or dataclasses.is_dataclass(hints[word])):
            found[word] = key
    return found


def help_text(kind: type, help: Help, short: Mapping[str, str]) -> str:
    """Return the text of ``--help``."""
    parts = [f"usage: {help.usage}", help.explanation.strip()]
    parts.append("Defaults < config=file.yaml < command line. Values are YAML: data.views=[4,8] run.progress=false")
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(typing.cast(Any, kind))
    sections = [f.name for f in fields if dataclasses.is_dataclass(hints[f.name])]
    own = [f for f in fields if f.name not in sections]
    if own:
        flat = dataclasses.make_dataclass("Own", [(f.name, hints[f.name], _declared(f)) for f in own], frozen=True)
        flat.__doc__ = kind.__doc__
        parts.append(section_text("keys", "", flat, short))
    parts += [section_text(name, f"{name}.", hints[name], short) for name in sections]
    if help.examples:
        parts.append("\n".join(["examples:", *(f"  {line}" for line in help.examples)]))
    return "\n\n".join(parts)


def _declared(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory, metadata=field.metadata)
    return dataclasses.field(default=field.default, metadata=field.metadata)


def _listed(kind: type, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return ``values`` with single ones made lists where ``kind`` wants a list: data=runs/demo, data.views=8.

    Nothing (out=) is empty text or an empty list where ``kind`` wants one of these.
    """
    hints = typing.get_type_hints(kind)
    spans = {f.name for f in dataclasses.fields(typing.cast(Any, kind)) if f.metadata.get("span")}
    result = dict(values)
    for key, value in values.items():
        hint = hints.get(key)
        if isinstance(value, Mapping):
            if dataclasses.is_dataclass(hint):
                result[key] = _listed(typing.cast(type, hint), value, f"{prefix}{key}.")
            elif hint is not None and typing.get_origin(hint) is not dict:
                raise ConfigError(f"{prefix}{key} has no keys of its own, but .{next(iter(value))} is given")
        elif key in spans and isinstance(value, int | float):
            result[key] = [value, value]
        elif typing.get_origin(hint) is tuple and not isinstance(value, list):
            result[key] = [] if value is None else [value]
        elif hint is str and value is None:
            result[key] = ""
    return result
