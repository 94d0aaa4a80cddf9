"""A job template in the Open Job Description format, for farms such as Deadline Cloud.

``python -m megasynth_attr.farm.openjd preset=geometry out=/shared/geometry [file=geometry.openjd.yaml]`` writes it.
One task per shard; ``Shards``, ``Out`` and ``Python`` are job parameters.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import yaml

from megasynth_attr.core.errors import ConfigError, run_main
from megasynth_attr.core.files import storage_errors
from megasynth_attr.farm.slurm import MOST_JOBS, SCENES_PER_JOB
from megasynth_attr.farm.tasks import select
from megasynth_attr.scene.config import Experiment, resolve

SPECIFICATION = "jobtemplate-2023-09"
KILL_AFTER_S = 60  # between SIGTERM and SIGKILL; the pipeline needs a second
OWN_KEYS = ("shard", "stages", "from", "from_stage", "executor", "out", "openjd_progress", "plan", "file")


def main(words: list[str]) -> None:
    """Write the template of the experiment described by ``words`` and say where it is."""
    plain = [word.removeprefix("--") for word in words]
    files = [word.partition("=")[2] for word in plain if word.startswith("file=")]
    experiment = resolve([word for word in plain if not word.startswith("file=")])
    path = Path(files[-1] if files else f"{experiment.preset}.openjd.yaml")
    if not path.parent.is_dir():
        raise ConfigError(f"file={path}: the folder {path.parent} does not exist")
    text = yaml.safe_dump(template(experiment), sort_keys=False, allow_unicode=True, width=120)
    with storage_errors("the job template", path):
        path.write_text(text, encoding="utf-8")
    print(f"{path}: job template of {experiment.preset}; check it with `openjd check {path}`")


def template(experiment: Experiment) -> dict[str, Any]:
    """Return the job template: step Generate with a task per shard, then step Finish with verify and report."""
    words = [w for w in experiment.words if w.removeprefix("--").partition("=")[0] not in OWN_KEYS]
    shards = min(MOST_JOBS, math.ceil(len(select(experiment)) / SCENES_PER_JOB))
    parameters: list[dict[str, Any]] = [
        {"name": "Out", "type": "STRING", "default": str(experiment.out)},  # a PATH cannot default to an absolute one
        {"name": "Shards", "type": "INT", "minValue": 1, "maxValue": MOST_JOBS, "default": shards},
        {"name": "Python", "type": "STRING", "default": sys.executable},
    ]
    shard = {"name": "Shard", "type": "INT", "range": "1-{{Param.Shards}}"}
    generate = ["stages=generate", "shard={{Task.Param.Shard}}/{{Param.Shards}}"]
    return {
        "specificationVersion": SPECIFICATION,
        "name": f"megasynth-attr {experiment.preset}",
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


def _action(words: list[str]) -> dict[str, Any]:
    own = ["out={{Param.Out}}", "executor=local", "openjd_progress=true"]
    return {
        "command": "{{Param.Python}}",
        "args": ["-m", "megasynth_attr.pipeline", *words, *own],
        "cancelation": {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": KILL_AFTER_S},
    }


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
