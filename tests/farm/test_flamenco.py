"""The Flamenco job type: what it authors, in Node with Flamenco's interface, and that the commands do what they say."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import runs
from literal_words import WORDS
from runs import Reference

from megasynth_attr.core.resources import resource_dir

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on the PATH")
SCRIPT = resource_dir("assets") / "farm" / "flamenco" / "megasynth_attr.js"


def authored(**settings: object) -> dict[str, Any]:
    command = ["node", str(Path(__file__).with_name("flamenco.js")), str(SCRIPT), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_tasks_render_shards_and_then_check_them(reference: Reference, tmp_path: Path) -> None:
    out, words = tmp_path / "it's here", [*runs.TINY[1:5], *runs.TINY[6:], "workers=1"]
    job = authored(out=str(out), shards=2, words=shlex.join(words), python=sys.executable)
    tasks = job["tasks"]
    assert [task["name"] for task in tasks] == ["render shard 1/2", "render shard 2/2", "complete, check and report"]
    assert [task["type"] for task in tasks] == ["blender", "blender", "misc"]
    assert [task["dependencies"] for task in tasks] == [[], [], ["render shard 1/2", "render shard 2/2"]]
    for task in tasks:
        (command,) = task["commands"]
        assert command["name"] == "exec" and "executor=local" in command["parameters"]["args"]
        if task is tasks[-1]:
            assert runs.tree_hash(out) == reference.hash
        line = [command["parameters"]["exe"], *command["parameters"]["args"]]
        done = subprocess.run(line, cwd="/", env=runs.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((out / "geometry_00" / "verify.json").read_text())["passed"]
    assert (out / "report" / "index.html").is_file()


def test_words_are_split_as_a_shell_does() -> None:
    words = [*(f"partition={text}" for text in WORDS), "texture.tiles_per_unit={log: [1, 8]}", "cache=a\\b'c\"d"]
    typed = r'cache="a b\"c\d"  blender=a\ b'
    for text, expected in ((shlex.join(words), words), (typed, ['cache=a b"c\\d', "blender=a b"])):
        assert shlex.split(text) == expected
        (task, _) = authored(out="/out", shards=1, words=text)["tasks"]
        assert task["commands"][0]["parameters"]["args"][3:-4] == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"out": "runs/x"}, "out=runs/x: give an absolute path, or one that begins with a Flamenco variable"),
        ({"preset": "dusk.yaml"}, "preset=dusk.yaml: give the absolute path of this file"),
        ({"shards": 0}, "shards=0: give 1 or more"),
        ({"words": "frames"}, "words: frames is not of the form key=value, or is set by the job itself; leave it out"),
        ({"words": "--shard=1/2"}, "words: --shard=1/2 is not of the form key=value, or is set by"),
        ({"words": "detach=true"}, "words: detach=true is not of the form key=value, or is set by"),
        ({"words": "a='b"}, "words: a quotation mark ' is not closed in a='b"),
    ],
)
def test_wrong_settings_are_refused_when_the_job_is_submitted(settings: dict[str, object], said: str) -> None:
    assert authored(**({"out": "/out"} | settings))["error"].startswith(said)
