"""From the words of a program to its settings, or to its ``--help``, which has one form for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from megasynth_attr.core.command.help import section_text
from megasynth_attr.core.command.keys import declared, is_required, nearest, sections, short_words
from megasynth_attr.core.command.layers import take_config
from megasynth_attr.core.command.settings import fill
from megasynth_attr.core.command.words import HELP_WORDS, parse_words, wants_help
from megasynth_attr.core.errors import ConfigError, ExitCode, print_help

Settings = TypeVar("Settings")
RULES = """\
Words are key=value; the last one for a key counts; defaults < config=file.yaml < words. Text is taken exactly as typed.
Lists are [a,b] or one item. A list of texts "one word each" is given by repeating the key, one item per word: k=a k=b.
--help SECTION shows the keys of one section."""

EXIT_CODES = {
    ExitCode.DONE: "everything asked for exists and is complete",
    ExitCode.CRASH: "a defect in this program",
    ExitCode.USAGE: "wrong configuration or input; running again cannot help",
    ExitCode.SCENES_FAILED: "some parts failed for good and are named; the others are complete",
    ExitCode.ENVIRONMENT: "this machine lacks something: a package, Blender, a GPU, disk space",
    ExitCode.INTERRUPTED: "interrupted or out of time; running again resumes",
}
KEYS = "keys"  # the name of the section of keys that belong to none
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


def parse(kind: type[Settings], words: Sequence[str], help: Help) -> Settings:
    """Return the nested dataclass ``kind`` filled from ``key=value`` words; defaults < config=file.yaml < words.

    Prints the help and raises SystemExit(0) if asked for it, or if a program that needs some key is given no word at
    all. Raises ConfigError for an unknown key (naming the nearest), a missing one, a wrong type or a value outside its
    limits.
    """
    if wants_help(words) or (not words and any(is_required(one) for one, _ in declared(kind))):
        print_help(help_text(kind, help, words))
        raise SystemExit(0)
    return fill(kind, take_config(parse_words(words, short_words(kind))))
