"""The text of ``--help``, in one form for every program, made from the dataclass of its keys."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field
from typing import Any

from megasynth_attr.core.command.keys import (
    declared,
    default_of,
    is_required,
    is_section,
    nearest,
    sections,
    short_words,
    type_text,
)
from megasynth_attr.core.command.words import HELP_WORDS
from megasynth_attr.core.errors import ConfigError, ExitCode

RULES = """\
Words are key=value, the last one for a key counts; defaults < config=file.yaml < words. Text is taken exactly as typed.
Lists are [a,b] or one item; a list of texts "one word each" takes every word for its key as an item, exactly as typed.
--help SECTION shows the keys of one section."""

EXIT_CODES = {
    ExitCode.DONE: "everything asked for exists and is complete",
    ExitCode.CRASH: "a defect of this program",
    ExitCode.USAGE: "wrong configuration or input; running again cannot help",
    ExitCode.SCENES_FAILED: "some parts failed for good and are named; the others are complete",
    ExitCode.ENVIRONMENT: "this machine lacks something: a package, Blender, a GPU, disk space",
    ExitCode.INTERRUPTED: "interrupted or out of time; running again resumes",
}
KEYS = "keys"  # the name of the section of keys that belong to none
NO_BREAK = "\u00a0"  # keeps two words in one line
Sections = Mapping[str, tuple[str, Any]]  # name → prefix of the keys, dataclass


@dataclass(frozen=True)
class Help:
    """The text around the keys: usage, what the program does, examples, and named paragraphs after the keys."""

    usage: str
    explanation: str
    examples: tuple[str, ...] = ()
    paragraphs: Mapping[str, str] = field(default_factory=dict)


def help_text(kind: Any, help: Help, words: Sequence[str] = ()) -> str:
    """Return ``--help`` of a program whose keys the dataclass ``kind`` declares; see ``sections_text``."""
    found = {prefix.removesuffix(".") or KEYS: (prefix, part) for prefix, part in sections(kind)}
    return sections_text(help, found, short_words(kind), words)


def sections_text(help: Help, found: Sections, short: Mapping[str, str], words: Sequence[str] = ()) -> str:
    """Return the text of ``--help``, or only the sections named by ``words``.

    Raises ConfigError for a section that is not among ``found``, naming the nearest.
    """
    texts = {name: section_text(name, prefix, kind, short) for name, (prefix, kind) in found.items()}
    texts = {name: text for name, text in (texts | dict(help.paragraphs)).items() if text}
    asked = [word.removeprefix("--") for word in words if word not in HELP_WORDS and "=" not in word]
    for name in asked:
        if name not in texts:
            guess = nearest(name, list(texts))
            raise ConfigError(f"--help {name}: there is no such section{guess}; known: {', '.join(texts)}")
    if asked:
        return "\n\n".join(texts[name] for name in asked)
    codes = ["exit codes:", *(f"  {int(code):2}  {meaning}" for code, meaning in EXIT_CODES.items())]
    examples = ["\n".join(["examples:", *(f"  {line}" for line in help.examples)])] if help.examples else []
    parts = [f"usage: {help.usage}", help.explanation.strip(), RULES, *texts.values(), *examples, "\n".join(codes)]
    return "\n\n".join(part for part in parts if part)


def section_text(name: str, prefix: str, kind: Any, short: Mapping[str, str]) -> str:
    """Return a section of ``--help``: every own key of the dataclass ``kind``, with ``prefix`` before its name.

    Empty for a dataclass that only holds sections.
    """
    docstring = " ".join((kind.__doc__ or "").split())
    title = f"{name}: {docstring}" if docstring and not docstring.startswith(f"{kind.__name__}(") else f"{name}:"
    entries = [_entry(f"{prefix}{one.name}", one, hint, short) for one, hint in declared(kind) if not is_section(hint)]
    return "\n".join([_wrapped(title, ""), *entries]) if entries else ""


def _entry(key: str, field: Field[Any], hint: Any, short: Mapping[str, str]) -> str:
    """Return a key's two lines: default, type and limits; meaning and short word."""
    default = "" if is_required(field) else value_text(default_of(field))
    facts = [*(["required"] if is_required(field) else []), type_text(hint, field.metadata), *_limits_text(field)]
    words = [word for word, full in short.items() if full == key]
    meaning = field.metadata.get("help", "")
    also = f"; short:{NO_BREAK}{words[0]}=" if words and f"{words[0]}=" not in meaning else ""
    return f"  {key}={default}   ({', '.join(facts)})\n{_wrapped(meaning + also, '      ')}"


def _wrapped(text: str, indent: str) -> str:
    width = min(120, shutil.get_terminal_size((120, 24)).columns)
    filled = textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return filled.replace(NO_BREAK, " ")


def _limits_text(field: Field[Any]) -> list[str]:
    low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
    if low is not None and high is not None:
        return [f"{low:g} to {high:g}"]
    return [f"at least {low:g}"] if low is not None else [f"at most {high:g}"] if high is not None else []


def value_text(value: Any) -> str:
    """Return a default as people read it; a value of its own kind says itself how."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple | list):
        return "[" + ",".join(map(value_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {value_text(v)}" for k, v in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
