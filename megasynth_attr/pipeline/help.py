"""The text of ``--help`` and ``--presets``, made from the dataclasses and the preset files themselves."""

from __future__ import annotations

import dataclasses
import difflib
import shutil
import textwrap
import types
import typing
from collections.abc import Mapping
from typing import Any

from megasynth_attr.core.codec import field_to_plain, is_range_type
from megasynth_attr.core.errors import ConfigError, ExitCode
from megasynth_attr.core.ranges import LogUniform
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.core.stages import EXTRAS
from megasynth_attr.pipeline.stages import Stages, find_stages
from megasynth_attr.scene.config import ALIASES, SECTIONS, preset_names, read_layers
from megasynth_attr.scene.factor import registered
from megasynth_attr.scene.settings import ContentSettings, RunSettings

USAGE = """\
usage: python -m megasynth_attr.pipeline preset=NAME [key=value ...]
       blender -b --factory-startup --python-exit-code 1 -P blender_scripts/render.py -- preset=NAME [key=value ...]

Defaults < preset < config=file.yaml < command line. Values are YAML: camera.fov_x_deg=[45,70] write.normal=true
--help SECTION shows one section, --presets lists the presets."""

EXAMPLES = """\
examples:
  python -m megasynth_attr.pipeline preset=demo
  python -m megasynth_attr.pipeline preset=geometry datasets=0 scenes=0-9 out=runs/g
  python -m megasynth_attr.pipeline preset=texture shard=2/64 stages=generate
  python -m megasynth_attr.pipeline preset=lighting render.width_px=280 render.height_px=280 write.normal=true
  python -m megasynth_attr.pipeline preset=camera from=verify
  python -m megasynth_attr.pipeline preset=paper_human plan=true
  python -m megasynth_attr.pipeline preset=demo from=cluster training.optim.steps=200 out=runs/longer"""

EXIT_CODES = {
    ExitCode.DONE: "everything asked for exists and is complete",
    ExitCode.CRASH: "a defect of this program",
    ExitCode.USAGE: "wrong configuration or input; running again cannot help",
    ExitCode.SCENES_FAILED: "some scenes failed for good, see failures/; the others are complete",
    ExitCode.ENVIRONMENT: "this machine lacks something: Blender, a GPU, disk space",
    ExitCode.INTERRUPTED: "interrupted or out of time; running again resumes",
}

ROOT_SECTIONS: dict[str, type] = {"content": ContentSettings, "run": RunSettings}
NO_BREAK = "\u00a0"  # keeps two words in one line


def wants_help(words: list[str]) -> bool:
    """Return whether the command line asks for text instead of work."""
    return any(word in ("-h", "--help", "help", "--presets") for word in words)


def help_text(words: list[str]) -> str:
    """Return what the command line asks for; ConfigError for an unknown section, naming the nearest."""
    if "--presets" in words:
        return presets_text()
    sections = [word.removeprefix("--") for word in words if word not in ("-h", "--help", "help") and "=" not in word]
    if given := [word for word in words if "=" in word]:
        read_layers(given)  # a preset may bring plugins, whose keys belong here too
    found = find_stages()
    texts = {name: _section(name, kind) for name, kind in section_kinds().items()} | stage_sections(found)
    if sections:
        return "\n\n".join(_known(name, texts) for name in sections)
    stages = "\n".join(["stages:", *(f"  {stage.name:9} {stage.meaning}" for stage in found.all)])
    return "\n\n".join([USAGE, stages, *texts.values(), EXAMPLES, _exit_code_text()])


def stage_sections(stages: Stages) -> dict[str, str]:
    """Return the keys of the sections of stages that are not built in; where some are missing, why that is."""
    texts = {
        section: "\n\n".join(section_text(name, f"{name}.", kind, {}) for name, kind in group.sections.items())
        for section, group in stages.groups.items()
        if group.sections
    }
    for section, extra in EXTRAS.items():
        if section not in stages.groups:
            names = f"{extra.stages[0]} to {extra.stages[-1]}"
            texts[section] = f"{section}: keys of the stages {names}; install the extra [{extra.name}] to see them"
    return texts | {section: f"{section}: {reason}" for section, reason in stages.broken.items()}


def presets_text() -> str:
    """Return one line per preset: its name and the first comment line of its file."""
    names = preset_names()
    width = max(map(len, names))
    lines = []
    for name in names:
        text = (resource_dir("presets") / f"{name}.yaml").read_text(encoding="utf-8")
        comment = next((line.lstrip("# ") for line in text.splitlines() if line.startswith("#")), "")
        lines.append(f"{name:{width}}  {comment}")
    return "\n".join(lines)


def section_kinds() -> dict[str, type]:
    """Return the settings dataclass of every section: content, run, render, write, isolation and one per factor."""
    return ROOT_SECTIONS | SECTIONS | {name: factor.settings for name, factor in registered().items()}


def _known(name: str, texts: Mapping[str, str]) -> str:
    if name not in texts:
        near = difflib.get_close_matches(name, texts, n=1, cutoff=0.4)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"--help {name}: there is no such section{guess}; known: {', '.join(texts)}")
    return texts[name]


def _section(name: str, kind: type) -> str:
    return section_text(name, "" if name in ROOT_SECTIONS else f"{name}.", kind, ALIASES)


def section_text(name: str, prefix: str, kind: type, aliases: Mapping[str, str]) -> str:
    """Return a section of ``--help``: every key of the dataclass ``kind``, with ``prefix`` before its name."""
    docstring = " ".join((kind.__doc__ or "").split())
    title = f"{name}: {docstring}" if docstring and not docstring.startswith(f"{kind.__name__}(") else f"{name}:"
    return "\n".join([_wrapped(title, ""), *_entries(prefix, kind, aliases)])


def _entries(prefix: str, kind: type, aliases: Mapping[str, str]) -> list[str]:
    hints = typing.get_type_hints(kind)
    lines = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            lines += _entries(f"{prefix}{field.name}.", typing.cast(type, hint), aliases)
            continue
        facts = [_type_text(hint, field), *_limits_text(field)]
        default = _value_text(field_to_plain(field, _default(field)))
        lines.append(f"  {prefix}{field.name}={default}   ({', '.join(facts)})")
        short = [alias for alias, key in aliases.items() if key == f"{prefix}{field.name}"]
        meaning = field.metadata.get("help", "")
        also = f"; short:{NO_BREAK}{short[0]}=" if short and f"{short[0]}=" not in meaning else ""
        lines.append(_wrapped(meaning + also, "      "))
    return lines


def _wrapped(text: str, indent: str) -> str:
    width = min(120, shutil.get_terminal_size((120, 24)).columns)
    filled = textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return filled.replace(NO_BREAK, " ")


def _default(field: dataclasses.Field[Any]) -> Any:
    if not isinstance(field.default_factory, dataclasses._MISSING_TYPE):
        return field.default_factory()
    return field.default


def _type_text(hint: Any, field: dataclasses.Field[Any]) -> str:
    """Return a type in words: number, whole number, text, true/false, range of …, list of …, table of …"""
    if field.metadata.get("options"):
        return "one of " + ", ".join(field.metadata["options"])
    plain = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    if hint in plain:
        return plain[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in args if a is not type(None)]
        return f"{_type_text(inner[0], field)} or null"
    if is_range_type(hint):
        log = "log-uniform " if field.metadata["pair"] is LogUniform else ""
        return f"{log}range [low, high], {plain[args[0] if args else float]}s"
    if origin is tuple and args:
        noun = plain.get(args[0], "value")
        return f"list of {noun}s" if args[-1] is Ellipsis else f"{len(args)} {noun}s"
    if origin is dict:
        return f"table of {plain.get(args[1], 'value')}s"
    return getattr(hint, "__name__", str(hint))


def _limits_text(field: dataclasses.Field[Any]) -> list[str]:
    low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
    if low is not None and high is not None:
        return [f"{low:g} to {high:g}"]
    return [f"at least {low:g}"] if low is not None else [f"at most {high:g}"] if high is not None else []


def _value_text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple | list):
        return "[" + ",".join(map(_value_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_value_text(v)}" for k, v in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else '""'


def _exit_code_text() -> str:
    return "\n".join(["exit codes:", *(f"  {int(code):2}  {meaning}" for code, meaning in EXIT_CODES.items())])
