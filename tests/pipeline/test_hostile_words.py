"""Words typed by nobody in their right mind: settings, or a typed error in one line; nothing else, and quickly."""

from __future__ import annotations

import contextlib
import importlib
import io
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from megasynth_attr.core.command.keys import all_keys, declared, short_words
from megasynth_attr.core.command.program import parse
from megasynth_attr.core.errors import expected
from megasynth_attr.core.selection import parse_indices, parse_shard
from megasynth_attr.farm.experiment import check_experiment
from megasynth_attr.farm.openjd import describe
from megasynth_attr.pipeline.check import check_settings
from megasynth_attr.pipeline.plan import plan_text
from megasynth_attr.pipeline.stages import find_stages
from megasynth_attr.scene.config import resolve, schema

INPUTS = 2000
PROGRAMS = {
    "megasynth_attr.dataset.verify": "Options",
    "megasynth_attr.dataset.export.__main__": "Options",
    "megasynth_attr.dataset.pack": "Options",
    "megasynth_attr.dataset.view.__main__": "Options",
    "megasynth_attr.pipeline.open_scene": "Options",
    "megasynth_attr.farm.commands": "Options",
    "megasynth_attr.textures.procedural.bank": "ProceduralOptions",
    "megasynth_attr.textures.contact_sheet": "SheetOptions",
    "megasynth_attr.textures.matsynth": "MatsynthOptions",
    "megasynth_train.bodies.__main__": "BodySettings",
    "megasynth_train.spoof.__main__": "SpoofSettings",
    "megasynth_train.finetune": "TrainSettings",
    "megasynth_train.cluster": "ClusterSettings",
    "megasynth_train.mine": "MineSettings",
    "megasynth_train.compare.__main__": "CompareSettings",
    "megasynth_train.evaluate.__main__": "EvaluateSettings",
    "megasynth_train.predict": "PredictSettings",
    "megasynth_train.inspect": "InspectSettings",
    "megasynth_train.basis": "BasisSettings",
    "megasynth_train.export_lora": "ExportSettings",
}
TEXTS = (
    "", "0", "-1", "1", "1e400", "-1e400", "nan", "inf", "9" * 400, "9" * 5000, "0x10", "1_000", "1e3", "true", "null",
    "[]", "[[]]", "[1", "]", "{", "{}", "{a: 1}", "{a: {b: 1}}", "{1: 2}", "[1,2]", "[2,1]", "[1,a]", "[nan,1]",
    "[1e400,1]", "{log: [0,1]}", "{log: [1,2]}", "{one_of: []}", "{one_of: [1,x]}", "{one_of: [" + "1," * 500 + "]}",
    "{log: 3}", "{log: {}}", "{uniform: [1,2,3]}", "[" * 300, "{a: " * 300, "[&a [*a]]", "&a [*a]", "{<<: 3}", "*a",
    "[!!python/name:os.system]", "!!int x", "[? a]", "a\0b", "\udce9", "\ud800", "\x1b[31m", "a\nb", "x" * 5000, "=",
    "..", "../../x", "/dev/zero", "/dev/null", "/", ".", "~", "~root", "~nobody/x", "é", "\u202e", "%s", "{0}", "${X}",
    "all", "0-9", "9-0", "0-99999999999999999999", "1/0", "0/1", "1/2", "2/1", "1/999999999999", "-", ",", "0,,1",
    "[[1,2],[3,4]]", "[[1,[2,[3]]]]", "{a: [b: c]}", "2024-01-01", "1:30", "---", "[---]", "'", '"', "['", "[\"\\", "#",
    "[,]", "{,}", "{:}", "[a: ]", "\t", " ", "\r", "[\t]", "@", "`", "[`]", "|", ">", "[|]", "%YAML 1.2", "\ufeff[1]",
    "[\ud800]", "[\0]", "{a: 1, a: 2}", "{[1]: 2}", "{null: 1}", "{true: 1}", f"[{'9' * 400}]", f"[{'9' * 5000}]",
)  # fmt: skip


def checked(words: list[str]) -> None:
    """Do what the pipeline does before it writes."""
    experiment, stages = resolve(words), find_stages()
    steps = stages.steps(experiment)
    check_settings(experiment, stages, steps)
    plan_text(steps, wanted=False)
    check_experiment(experiment)


def carried(words: list[str]) -> None:
    """Do what a job template does with the pipeline's words."""
    describe(resolve(words), Path("/"))


def word(keys: list[str], draw: random.Random) -> str:
    """Return a word for one of the keys, most often a bad one."""
    key = draw.choice(keys)
    if (kind := draw.random()) < 0.05:
        return draw.choice(TEXTS)
    if kind < 0.15:
        at = draw.randrange(len(key))
        key = draw.choice([key[:at] + draw.choice(".-_=x\0é") + key[at:], f"{key}.{draw.choice(keys)}", f"--{key}", ""])
    text = draw.choice(TEXTS)
    return f"{key}={draw.choice(TEXTS)}{text}" if draw.random() < 0.1 else f"{key}={text}"


def uses() -> list[tuple[Callable[[list[str]], Any], list[str], list[str]]]:
    """Return what reads words, its keys, and words it needs."""
    found: list[tuple[Callable[[list[str]], Any], list[str], list[str]]] = []
    for module, name in PROGRAMS.items():
        program = importlib.import_module(module)
        kind = getattr(program, name)
        needed = [f"{field.name}=x" for field, _ in declared(kind) if field.name in ("dataset", "format", "out")]
        found.append((partial(parse, kind, help=program.HELP), [*all_keys(kind), *short_words(kind)], needed))
    keys = [*all_keys(schema()), *short_words(schema()), "training.model.size", "cluster.steps", "mine.rank", "config"]
    return [*found, *([(checked, keys, ["preset=demo"])] * 2), (carried, keys, ["preset=demo"])]


@pytest.mark.filterwarnings("ignore")
def test_no_word_ends_in_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw, every, slowest = random.Random(4), uses(), 0.0
    unexpected = []
    for _ in range(INPUTS):
        use, keys, needed = draw.choice(every)
        words = [*needed, *(word(keys, draw) for _ in range(draw.choice((1, 1, 1, 2))))]
        began = time.process_time()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                use(words)
        except SystemExit:  # after --help
            continue
        except Exception as error:
            if (typed := expected(error)) is None:
                unexpected.append((type(error).__name__, str(error)[:80], [one[:60] for one in words]))
            else:
                assert str(typed).isprintable()
        slowest = max(slowest, time.process_time() - began)
    assert unexpected == []
    assert slowest < 5 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", TEXTS)
def test_no_selection_ends_in_a_traceback(text: str) -> None:
    for read in (partial(parse_indices, count=200, key="scenes"), parse_shard):
        try:
            read(text)
        except Exception as error:
            assert expected(error) is not None, error
