"""Words that must arrive as typed, and how to ask a program's keys for them."""

from __future__ import annotations

import os
from functools import reduce
from pathlib import Path
from typing import Any

from megasynth_attr.core.command.keys import declared, sections, short_words
from megasynth_attr.core.command.settings import fill
from megasynth_attr.core.command.words import parse_words

LINES = (Path(__file__).parent / "fixtures" / "words.txt").read_text(encoding="utf-8").splitlines()
WORDS = [
    *LINES,
    " blanks ",
    "two\nlines",
    "tab\t",
    "{{Param.Out}}",
    "{a: 1}",
    "x" * 300,
    "--out",
    "a,b",
    "null",
    "é\u0301",
]
NOT_UTF8 = os.fsdecode(b"caf\xe9")


def text_keys(kind: Any) -> list[str]:
    """Return the keys of ``kind`` that hold free text, or a list of it whose words are items."""
    return [
        f"{prefix}{field.name}"
        for prefix, part in sections(kind)
        for field, hint in declared(part)
        if (hint is str and not field.metadata.get("options")) or field.metadata.get("literal")
    ]


def arrived(kind: Any, word: str) -> dict[str, str]:
    """Return what arrives at every such key when ``word`` is given for all, by short words where there are any."""
    keys, short = text_keys(kind), short_words(kind)
    names = {full: name for name, full in short.items()}
    settings: Any = fill(kind, parse_words([f"{names.get(key, key)}={word}" for key in keys], short))
    values = {}
    for key in keys:
        value = reduce(getattr, key.split("."), settings)
        if isinstance(value, tuple):
            (value,) = value
        values[key] = value
    return values
