"""A job template in the Open Job Description format, for farms such as Deadline Cloud.

One task per shard; ``Shards``, ``Out`` and ``Python`` are job parameters.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.command.words import shown, split, wants_help
from megasynth_attr.core.errors import ConfigError, run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.stages import section_names
from megasynth_attr.farm.slurm import MOST_JOBS, SCENES_PER_JOB
from megasynth_attr.farm.tasks import select
from megasynth_attr.scene.config import Experiment, resolve

SPECIFICATION = "jobtemplate-2023-09"
LONGEST_TEXT = 1024  # of a job parameter
KILL_AFTER_S = 60  # between SIGTERM and SIGKILL; the pipeline needs a second
HELP = Help(
    usage="python -m megasynth_attr.farm.openjd preset=NAME out=FOLDER [file=FILE] [key=value ...]",
    explanation="""
Writes a job template in the Open Job Description format: a step with a task per shard, then verify and report. Shards,
Out and Python are job parameters. All other words are those of python -m megasynth_attr.pipeline; see its --help.
""",
    examples=("python -m megasynth_attr.farm.openjd preset=geometry out=/shared/geometry file=geometry.openjd.yaml",),
)
OWN_KEYS = ("shard", "stages", "from", "from_stage", "executor", "out", "openjd_progress", "plan")


@dataclass(frozen=True)
class Options:
    """The program's own key, beside those of the pipeline."""

    file: str = setting("", "the template; empty: <preset>.openjd.yaml in the current folder")


def main(words: list[str]) -> None:
    """Write the template of the experiment described by ``words`` and say where it is."""
    own = [word for word in words if wants_help([word]) or split(word)[0] == "file"]
    options = parse(Options, own, HELP)
    experiment = resolve([word for word in words if word not in own])
    path = Path(options.file or f"{experiment.preset}.openjd.yaml")
    if not path.parent.is_dir():
        raise ConfigError(f"file={path}: the folder {path.parent} does not exist")
    with storage_errors("the job template", path):
        path.write_text(template_text(experiment), encoding="utf-8")
    print(f"{path}: job template of {experiment.preset}; check it with `openjd check {path}`")


def template_text(experiment: Experiment) -> str:
    """Return the file's text, in ASCII: YAML would take some other characters for line breaks and fold them."""
    return yaml.safe_dump(template(experiment), sort_keys=False, width=120)


def template(experiment: Experiment) -> dict[str, Any]:
    """Return the job template: step Generate with a task per shard, then step Finish with verify and report.

    Raises ConfigError for words that the format cannot carry.
    """
    unwanted = {*OWN_KEYS, *section_names()}  # machines that render may lack the packages of other stages
    given = [word for word in experiment.words if split(word)[0].partition(".")[0] not in unwanted]
    words, held = _carried(given)
    shards = min(MOST_JOBS, math.ceil(len(select(experiment)) / SCENES_PER_JOB))
    parameters: list[dict[str, Any]] = [
        _text("Out", str(experiment.out)),  # a PATH cannot default to an absolute one
        {"name": "Shards", "type": "INT", "minValue": 1, "maxValue": MOST_JOBS, "default": shards},
        _text("Python", sys.executable),
        *held,
    ]
    shard = {"name": "Shard", "type": "INT", "range": "1-{{Param.Shards}}"}
    generate = ["stages=generate", "shard={{Task.Param.Shard}}/{{Param.Shards}}"]
    return {
        "specificationVersion": SPECIFICATION,
        "name": f"megasynth-attr {_printable(experiment.preset)}",
        "parameterDefinitions": parameters,
        "steps": [
            {
                "name": "Generate",
                "parameterSpace": {"taskParameterDefinitions": [shard]},
                "script": {"actions": {"onRun": _action([*words, *generate])}},
            },
            {
                "name": "Finish",
                "dependencies": [{"dependsOn": "Generate"}],
                "script": {"actions": {"onRun": _action([*words, "stages=verify,report"])}},
            },
        ],
    }


def _carried(words: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return ``words`` as a template's arguments, and the job parameters that some of them need.

    A template reads ``{{…}}`` in an argument and allows it few control characters, but leaves the value of a parameter
    alone: a word with such characters becomes the default of one.
    """
    arguments: list[str] = []
    parameters: list[dict[str, Any]] = []
    for word in words:
        if "{{" in word or not word.isprintable():
            parameters.append(_text(f"Word{len(parameters) + 1}", word))
            word = f"{{{{Param.{parameters[-1]['name']}}}}}"
        arguments.append(word)
    return arguments, parameters


def _text(name: str, value: str) -> dict[str, Any]:
    """Return the definition of a text parameter; ConfigError for a value that no parameter can have."""
    if len(value) > LONGEST_TEXT:
        raise ConfigError(f"{shown(value)}: a job template holds at most {LONGEST_TEXT} characters here; shorten it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{shown(value)} is not UTF-8, which a job template must be; rename the file") from None
    return {"name": name, "type": "STRING", "default": value}


def _printable(text: str) -> str:
    """Return ``text`` without what the name of a job cannot hold."""
    return "".join(character for character in text if character.isprintable()).replace("{{", "(")[:100]


def _action(words: list[str]) -> dict[str, Any]:
    own = ["out={{Param.Out}}", "executor=local", "openjd_progress=true"]
    return {
        "command": "{{Param.Python}}",
        "args": ["-m", "megasynth_attr.pipeline", *words, *own],
        "cancelation": {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": KILL_AFTER_S},
    }


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
