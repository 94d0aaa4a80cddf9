"""A job template in the Open Job Description format, for farms such as Deadline Cloud, and the bundle that holds it.

One task per shard. Output folder, input files, number of shards and Python are job parameters; those that are paths are
mapped where a worker has them elsewhere.
"""

from __future__ import annotations

import math
import re
import shlex
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
from megasynth_attr.farm.elsewhere import (
    FINISH,
    Given,
    files_read,
    portable,
    require_all_shards,
    run_words,
    shard_count,
)
from megasynth_attr.farm.slurm import MOST_JOBS
from megasynth_attr.farm.slurm_run import CORES
from megasynth_attr.farm.workers import BEST_THREADS, WORKER_BYTES
from megasynth_attr.scene.config import Experiment, resolve
from megasynth_attr.scene.settings import RunSettings

SPECIFICATION = "jobtemplate-2023-09"
LONGEST_TEXT, MOST_PARAMETERS = 1024, 50  # of a job parameter; of a template
KILL_AFTER_S = 60  # between SIGTERM and SIGKILL; the pipeline needs a second
FLOWS = {"cache": "NONE", "blender": "NONE"}  # places on a worker, mapped but not copied
OS_FAMILY = {"linux": "linux", "darwin": "macos", "win32": "windows"}
HELP = Help(
    usage="python -m megasynth_attr.farm.openjd preset=NAME out=FOLDER [file=FILE | bundle=FOLDER] [key=value ...]",
    explanation="""
Writes a job template in the Open Job Description format: a step with a task per shard, then one that completes, checks
and reports. Out, Shards, Python and every file or folder that is read are job parameters; a path below the template's
folder is its default, all others are given when the job is submitted. bundle= writes the template into a job bundle of
AWS Deadline Cloud, with these values. All other words are those of python -m megasynth_attr.pipeline; see its --help.
""",
    examples=(
        "python -m megasynth_attr.farm.openjd preset=geometry out=/shared/geometry file=geometry.openjd.yaml",
        "python -m megasynth_attr.farm.openjd preset=dusk.yaml out=/shared/dusk bundle=dusk_job shards=64",
        "deadline bundle submit dusk_job",
    ),
)


@dataclass(frozen=True)
class Options:
    """The program's own keys, beside those of the pipeline."""

    file: str = setting("", "the template; empty: <preset>.openjd.yaml in the current folder")
    bundle: str = setting("", "folder of a job bundle: template.yaml, parameter_values.yaml, asset_references.yaml")
    shards: int = setting(
        0, "default number of tasks; 0: one per 10 scenes, at most 1000", minimum=0, maximum=MOST_JOBS
    )


@dataclass(frozen=True)
class Job:
    """A template, the values of parameters that cannot have a default, and files that no parameter names."""

    template: dict[str, Any]
    values: dict[str, str]
    other_files: tuple[Path, ...]


def main(words: list[str]) -> None:
    """Write the template of the experiment described by ``words`` and say where it is."""
    keys = ("file", "bundle", "shards")
    own = [word for word in words if wants_help([word]) or split(word)[0] in keys]
    options = parse(Options, own, HELP)
    experiment = resolve([word for word in words if word not in own])
    if options.file and options.bundle:
        raise ConfigError(f"file={options.file} bundle={options.bundle}: give one of the two")
    if options.bundle:
        folder = Path(options.bundle)
        with storage_errors("the job bundle", folder):
            folder.mkdir(parents=True, exist_ok=True)
            job = describe(experiment, folder.absolute(), options.shards)
            for name, content in bundle_files(job).items():
                (folder / name).write_text(content, encoding="utf-8")
        print(f"{folder}: job bundle of {experiment.preset}; submit it with `deadline bundle submit {folder}`")
        return
    path = Path(options.file or f"{experiment.preset}.openjd.yaml")
    if not path.parent.is_dir():
        raise ConfigError(f"file={path}: the folder {path.parent} does not exist")
    job = describe(experiment, path.absolute().parent, options.shards)
    with storage_errors("the job template", path):
        path.write_text(yaml_text(job.template), encoding="utf-8")
    print(f"{path}: job template of {experiment.preset}; check it with `openjd check {path}`")
    if job.values:
        given = " ".join(f"-p {shlex.quote(f'{name}={value}')}" for name, value in job.values.items())
        print(f"and run it with `openjd run {path} {given}`: paths outside its folder are given when it is submitted")


def bundle_files(job: Job) -> dict[str, str]:
    """Return the texts of a bundle's files by name."""
    values = [{"name": name, "value": value} for name, value in job.values.items()]
    inputs = {"filenames": [str(path) for path in job.other_files], "directories": []}
    references = {"inputs": inputs, "outputs": {"directories": []}}  # what parameters name is known from them
    return {
        "template.yaml": yaml_text(job.template),
        "parameter_values.yaml": yaml_text({"parameterValues": values}),
        "asset_references.yaml": yaml_text({"assetReferences": references}),
    }


def yaml_text(content: Any) -> str:
    """Return a file's text, in ASCII: YAML would take some other characters for line breaks and fold them."""
    return yaml.safe_dump(content, sort_keys=False, width=120)


def describe(experiment: Experiment, folder: Path, shards: int = 0) -> Job:
    """Return the job whose template lies in ``folder``: step Generate with a task per shard, then step Finish.

    Raises ConfigError for words that the format cannot carry.
    """
    require_all_shards(experiment)
    given = portable(experiment)
    parameters = _Parameters(folder)
    out = parameters.path("Out", str(experiment.out), "folder", "out=", "Output folder.", flow="OUT")
    shards_of = {"name": "Shards", "type": "INT", "minValue": 1, "maxValue": MOST_JOBS}
    shards_of |= {"default": shard_count(experiment, shards), "description": "Number of tasks that share the scenes."}
    parameters.add(shards_of, "SPIN_BOX", "tasks")
    python = parameters.text(
        "Python", sys.executable, "The Python of the workers that has megasynth-attr.", "LINE_EDIT"
    )
    words = [*(parameters.carried(one) for one in given), f"out={out}", "openjd_progress=true"]
    shard = {"name": "Shard", "type": "INT", "range": "1-{{Param.Shards}}"}
    template = {
        "specificationVersion": SPECIFICATION,
        "name": f"megasynth-attr {_printable(experiment.preset)}",
        "description": f"Renders the datasets of preset {_printable(experiment.preset)}, then checks and reports them.",
        "parameterDefinitions": parameters.definitions,
        "steps": [
            {
                "name": "Generate",
                "parameterSpace": {"taskParameterDefinitions": [shard]},
                "hostRequirements": _amounts(experiment.run) | _system(),
                "script": _script(python, [*words, *run_words("{{Task.Param.Shard}}/{{Param.Shards}}")]),
            },
            {
                "name": "Finish",
                "dependencies": [{"dependsOn": "Generate"}],
                "hostRequirements": _system(),
                "script": _script(python, [*words, *FINISH]),
            },
        ],
    }
    return Job(template, parameters.values, tuple(path for path in files_read(given) if path not in parameters.paths))


class _Parameters:
    """The job parameters: their definitions, and the values of those that cannot have a default."""

    def __init__(self, folder: Path) -> None:
        self.definitions: list[dict[str, Any]] = []
        self.values: dict[str, str] = {}
        self.paths: set[Path] = set()
        self._folder = folder

    def add(self, definition: dict[str, Any], control: str, label: str = "", **interface: Any) -> str:
        """Add a parameter and return how a template refers to it; ConfigError if there are too many."""
        if len(self.definitions) == MOST_PARAMETERS:
            raise ConfigError(
                f"a job template has at most {MOST_PARAMETERS} parameters, and every file and folder that is named "
                "needs one; name fewer, e.g. make one file of several plugins"
            )
        shown_as = {"control": control, **({"label": label} if label else {}), **interface}
        self.definitions.append(definition | {"userInterface": shown_as})
        return f"{{{{Param.{definition['name']}}}}}"

    def text(self, name: str, value: str, description: str, control: str) -> str:
        """Add a text parameter whose default is ``value``."""
        definition = {"name": name, "type": "STRING", "default": _checked(value), "description": description}
        return self.add(definition, control)

    def path(self, name: str, value: str, kind: str, label: str, meaning: str, flow: str) -> str:
        """Add a path: its default if it is below the template's folder, for a default may be nowhere else."""
        definition = {"name": name, "type": "PATH", "objectType": "FILE" if kind == "file" else "DIRECTORY"}
        definition |= {"dataFlow": flow, "description": meaning}
        path = Path(_checked(value))
        self.paths.add(path)
        if path.is_relative_to(self._folder) and ".." not in path.parts:
            definition["default"] = str(path.relative_to(self._folder))
        else:
            self.values[name] = value
        return self.add(definition, "CHOOSE_INPUT_FILE" if kind == "file" else "CHOOSE_DIRECTORY", label)

    def carried(self, given: Given) -> str:
        """Return a word as an argument of the template.

        A template reads ``{{`` and ``}}`` in an argument and allows it few control characters, but leaves the value of
        a parameter alone: a word with such characters becomes the default of one, and every path becomes one.
        """
        if not any(given.paths):
            word = str(given)
            if "{{" not in word and "}}" not in word and word.isprintable():
                return word
            number = sum(one["name"].startswith("Word") for one in self.definitions) + 1
            return self.text(f"Word{number}", word, f"A word with {given.key}=, as it was typed.", "HIDDEN")
        name = "".join(part.capitalize() for part in re.split(r"[._]", given.key))
        texts = []
        for number, (text, kind) in enumerate(zip(given.texts, given.paths, strict=True), start=1):
            if given.is_list and "'" in text:
                raise ConfigError(f"{shown(text)}: in a list of a job template no path has an apostrophe; rename it")
            own_name, flow = f"{name}{number}" if given.is_list else name, FLOWS.get(given.key, "IN")
            texts.append(self.path(own_name, text, kind, f"{given.key}=", given.meaning, flow) if kind else text)
        return given.word(texts)


def _amounts(run: RunSettings) -> dict[str, Any]:
    """Return what a worker must have to render: cores, memory, and a GPU if one renders."""
    workers = run.workers or max(1, CORES // BEST_THREADS)
    gpu = [{"name": "amount.worker.gpu", "min": 1}] if run.device != "cpu" else []
    cores = {"name": "amount.worker.vcpu", "min": workers * (run.threads or BEST_THREADS)}
    memory = {"name": "amount.worker.memory", "min": math.ceil(workers * WORKER_BYTES / 2**20)}  # MiB
    return {"amounts": [cores, memory, *gpu]}


def _system() -> dict[str, Any]:
    """Return that a worker must run this system: commands and paths are those of it."""
    return {"attributes": [{"name": "attr.worker.os.family", "anyOf": [OS_FAMILY.get(sys.platform, "linux")]}]}


def _checked(value: str) -> str:
    """Return ``value``; ConfigError if no parameter can have it."""
    if len(value) > LONGEST_TEXT:
        raise ConfigError(f"{shown(value)}: a job template holds at most {LONGEST_TEXT} characters here; shorten it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{shown(value)} is not UTF-8, which a job template must be; rename the file") from None
    return value


def _printable(text: str) -> str:
    """Return ``text`` without what the name of a job cannot hold."""
    return "".join(c for c in text if c.isprintable()).replace("{{", "(").replace("}}", ")")[:100]


def _script(python: str, words: Sequence[str]) -> dict[str, Any]:
    run = {
        "command": python,
        "args": ["-m", "megasynth_attr.pipeline", *words],
        "cancelation": {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": KILL_AFTER_S},
    }
    return {"actions": {"onRun": run}}


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
