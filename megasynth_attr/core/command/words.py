"""``key=value`` words, before the types of their keys are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from megasynth_attr.core.codec import plain_text
from megasynth_attr.core.errors import ConfigError

HELP_WORDS = ("--help", "-h", "help")


@dataclass(frozen=True)
class Typed:
    """What was typed for one key: the texts of all its words, in order. The key's type decides how they are read."""

    texts: tuple[str, ...]

    def __str__(self) -> str:
        return self.texts[-1]


def parse_words(words: Sequence[str], short: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Return nested dicts from dotted keys to ``Typed`` texts; ``short`` maps short keys to full ones.

    Raises ConfigError for a word that is not key=value, and for a key that is given both a value and keys of its own.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, text = split(word)
        *sections, name = short.get(key, key).split(".")
        place = settings
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise _both(key, section)
        before = place.get(name)
        if isinstance(before, dict):
            raise _both(key, name)
        place[name] = Typed((*before.texts, text) if before else (text,))
    return settings


def split(word: str) -> tuple[str, str]:
    """Return (key, text) of a word, a leading ``--`` dropped; ConfigError if it is not key=value."""
    key, equals, text = word.removeprefix("--").partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{shown(word)!r} is not of the form key=value, e.g. out=runs/new; --help lists the keys")
    return key, text


def wants_help(words: Sequence[str]) -> bool:
    """Return whether the words ask for ``--help`` instead of work."""
    return any(word in HELP_WORDS for word in words)


def shown(value: Any) -> str:
    """Return ``value`` as people type it, in one line and not too long, for messages."""
    text = "" if value is None else plain_text(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 200 else f"{text[:100]}… ({len(text)} characters)"


def _both(key: str, name: str) -> ConfigError:
    return ConfigError(f"{key}=: {name} is given a value and keys of its own; give one or the other")
