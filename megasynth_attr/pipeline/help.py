"""What ``--help`` and ``--presets`` of the pipeline say: stages, presets, and the sections of factors and stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from megasynth_attr.core.command.help import section_text
from megasynth_attr.core.command.keys import short_words
from megasynth_attr.core.command.program import Help, sections_text
from megasynth_attr.core.command.words import wants_help
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.core.stages import EXTRAS
from megasynth_attr.pipeline.stages import Stages, find_stages
from megasynth_attr.scene.config import SECTIONS, preset_names, read_layers
from megasynth_attr.scene.factor import registered
from megasynth_attr.scene.settings import ContentSettings, RunSettings

HELP = Help(
    usage=(
        "python -m megasynth_attr.pipeline preset=NAME [key=value ...]\n"
        "       python -m megasynth_attr.pipeline --presets      lists the presets\n"
        "       blender -b --factory-startup --python-exit-code 1 -P blender_scripts/render.py -- preset=NAME "
        "[key=value ...]"
    ),
    explanation="Generates the datasets of a preset, checks them, trains on them, and writes pages about all of it.",
    examples=(
        "python -m megasynth_attr.pipeline preset=demo",
        "python -m megasynth_attr.pipeline preset=geometry datasets=0 scenes=0-9 out=runs/g",
        "python -m megasynth_attr.pipeline preset=texture shard=2/64 stages=generate",
        "python -m megasynth_attr.pipeline preset=lighting render.width_px=280 render.height_px=280 write.normal=true",
        "python -m megasynth_attr.pipeline preset=camera from=verify",
        "python -m megasynth_attr.pipeline preset=paper_human plan=true",
        "python -m megasynth_attr.pipeline preset=demo from=cluster training.optim.steps=200 out=runs/longer",
    ),
)


def wanted_text(words: list[str]) -> str | None:
    """Return what the command line asks for instead of work, None if it asks for work."""
    if "--presets" in words:
        return presets_text()
    return help_text(words) if wants_help(words) else None


def help_text(words: list[str]) -> str:
    """Return ``--help``, or the sections that are named; ConfigError for an unknown section, naming the nearest."""
    if given := [word for word in words if "=" in word]:
        read_layers(given)  # loads plugins, whose keys belong here too
    stages = find_stages()
    listed = "\n".join(["stages:", *(f"  {stage.name:9} {stage.meaning}" for stage in stages.all)])
    help = replace(HELP, explanation=f"{HELP.explanation}\n\n{listed}", paragraphs=stage_sections(stages))
    prefixes = {"content": "", "run": ""}
    found = {name: (prefixes.get(name, f"{name}."), kind) for name, kind in section_kinds().items()}
    return sections_text(help, found, short_words(RunSettings), words)


def stage_sections(stages: Stages) -> dict[str, str]:
    """Return the keys of the sections of stages that are not built in, or why a section is missing."""
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


def section_kinds() -> Mapping[str, type]:
    """Return the settings dataclass of every section: content, run, render, write, isolation and one per factor."""
    factors = {name: factor.settings for name, factor in registered().items()}
    return {"content": ContentSettings, "run": RunSettings} | SECTIONS | factors
