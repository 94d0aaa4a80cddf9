"""From the words of a program to its settings, or to its ``--help``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from megasynth_attr.core.command.help import Help, help_text
from megasynth_attr.core.command.keys import is_required, short_words
from megasynth_attr.core.command.layers import take_config
from megasynth_attr.core.command.settings import fill
from megasynth_attr.core.command.words import parse_words, wants_help
from megasynth_attr.core.errors import print_help

Settings = TypeVar("Settings")


def parse(kind: type[Settings], words: Sequence[str], help: Help) -> Settings:
    """Return the nested dataclass ``kind`` filled from ``key=value`` words; defaults < config=file.yaml < words.

    Prints the help and raises SystemExit(0) if asked for it, or if a program that needs some key is given no word at
    all. Raises ConfigError for an unknown key (naming the nearest), a missing one, a wrong type or a value outside its
    limits.
    """
    if wants_help(words) or (not words and _needs_some(kind)):
        print_help(help_text(kind, help, words))
        raise SystemExit(0)
    return fill(kind, take_config(parse_words(words, short_words(kind))))


def _needs_some(kind: Any) -> bool:
    return any(is_required(field) for field in fields(kind))
