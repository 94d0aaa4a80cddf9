"""What ``--help`` and ``--presets`` of the pipeline say besides the keys: stages, presets, sections of factors."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from megasynth_attr.core.command.help import section_text
from megasynth_attr.core.command.keys import short_words
from megasynth_attr.core.command.program import Help, sections_text
from megasynth_attr.core.command.words import wants_help
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.pipeline.stages import STAGES
from megasynth_attr.scene.config import SECTIONS, TRAINING, preset_names, read_layers
from megasynth_attr.scene.factor import registered
from megasynth_attr.scene.settings import ContentSettings, RunSettings

USAGE = """\
python -m megasynth_attr.pipeline preset=NAME [key=value ...]
       python -m megasynth_attr.pipeline --presets      lists the presets
       blender -b --factory-startup --python-exit-code 1 -P blender_scripts/render.py -- preset=NAME [key=value ...]"""
EXAMPLES = (
    "python -m megasynth_attr.pipeline preset=demo",
    "python -m megasynth_attr.pipeline preset=geometry datasets=0 scenes=0-9 out=runs/g",
    "python -m megasynth_attr.pipeline preset=texture shard=2/64 stages=generate",
    "python -m megasynth_attr.pipeline preset=lighting render.width_px=280 render.height_px=280 write.normal=true",
    "python -m megasynth_attr.pipeline preset=camera from=verify",
    "python -m megasynth_attr.pipeline preset=paper_human plan=true",
    "python -m megasynth_attr.pipeline preset=demo from=cluster training.optim.steps=200 out=runs/longer",
)


def wanted_text(words: list[str]) -> str | None:
    """Return what the command line asks for instead of work, None if it asks for work."""
    if "--presets" in words:
        return presets_text()
    return help_text(words) if wants_help(words) else None


def help_text(words: list[str]) -> str:
    """Return ``--help``, or the sections that are named; ConfigError for an unknown section, naming the nearest."""
    if given := [word for word in words if "=" in word]:
        read_layers(given)  # a preset may bring plugins, whose keys belong here too
    stages = "\n".join(["stages:", *(f"  {stage.name:9} {stage.meaning}" for stage in STAGES)])
    explanation = "Generates the datasets of a preset, checks them, trains on them, and writes pages about all of it."
    help = Help(USAGE, f"{explanation}\n\n{stages}", EXAMPLES, {TRAINING: training_text()})
    prefixes = {"content": "", "run": ""}
    found = {name: (prefixes.get(name, f"{name}."), kind) for name, kind in section_kinds().items()}
    return sections_text(help, found, short_words(RunSettings), words)


def training_text() -> str:
    """Return the keys of the section ``training``, which the training half declares, or that it is not installed."""
    if importlib.util.find_spec("megasynth_train") is None:
        return f"{TRAINING}: keys of the stages pretrain to compare; install the extra [train] to see them"
    from megasynth_train.experiment.settings import help_sections

    return "\n\n".join(section_text(name, f"{name}.", kind, {}) for name, kind in help_sections().items())


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
