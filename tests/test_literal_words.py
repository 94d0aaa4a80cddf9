"""Text arrives as it was typed: in every program of the generator, and through everything that hands words on."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import portraits
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_words import WORDS, arrived, text_keys

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.dataset import pack, verify
from megasynth_attr.dataset.export import __main__ as export
from megasynth_attr.dataset.view import __main__ as view
from megasynth_attr.farm import openjd
from megasynth_attr.farm.slurm import shard_command
from megasynth_attr.farm.tasks import select
from megasynth_attr.pipeline import __main__ as pipeline
from megasynth_attr.pipeline import open_scene
from megasynth_attr.scene.config import Experiment, resolve
from megasynth_attr.textures import contact_sheet, matsynth
from megasynth_attr.textures.procedural import bank

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {
    "verify": verify.Options,
    "export": export.Options,
    "pack": pack.Options,
    "view": view.Options,
    "openjd": openjd.Options,
    "open_scene": open_scene.Options,
    "contact_sheet": contact_sheet.SheetOptions,
    "matsynth": matsynth.MatsynthOptions,
    "procedural": bank.ProceduralOptions,
    "portraits": portraits.PortraitOptions,
}
PIPELINE_KEYS = ("out", "cache", "partition", "texture.bank", "texture.pictures", "lighting.hdris")


@pytest.mark.parametrize("kind", PROGRAMS.values(), ids=PROGRAMS)
def test_every_text_of_every_program_arrives_unchanged(kind: Any) -> None:
    assert text_keys(kind)
    for word in WORDS:
        assert arrived(kind, word) == dict.fromkeys(text_keys(kind), word)


def words_with(word: str) -> list[str]:
    return ["preset=texture", "scene_count=2", *(f"{key}={word}" for key in PIPELINE_KEYS)]


def found(experiment: Experiment) -> list[str]:
    (config,) = experiment.members
    texture, lighting = config.factors["texture"], config.factors["lighting"]
    return [config.run.out, config.run.cache, config.run.partition, texture.bank, texture.pictures, lighting.hdris]


@pytest.mark.parametrize("word", WORDS)
def test_the_pipeline_and_what_it_hands_words_to(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = resolve(words_with(word))
    assert found(experiment) == [word] * len(PIPELINE_KEYS)
    assert experiment.out == Path.cwd() / word

    shard = resolve(shard_command(experiment, "1/2")[3:])  # what an array job of Slurm runs
    assert found(shard) == [str(experiment.out), *[word] * (len(PIPELINE_KEYS) - 1)]
    assert (shard.run.shard, shard.run.stages, shard.run.executor) == ("1/2", "generate", "local")

    task = resolve(template_arguments(experiment))
    assert found(task) == absolute(experiment) and task.run.shard == "1/2"

    monkeypatch.setattr(sys, "argv", ["blender", "-b", "-P", "render.py", "--", *words_with(word)])
    assert found(resolve(words_of_render_script(monkeypatch))) == [word] * len(PIPELINE_KEYS)


def absolute(experiment: Experiment) -> list[str]:
    """Return what ``found`` returns on a machine that is given absolute paths."""
    keys = dict(zip(PIPELINE_KEYS, found(experiment), strict=True))
    return [text if key == "partition" else str(Path(text).absolute()) for key, text in keys.items()]


def template_arguments(experiment: Experiment) -> list[str]:
    """Return the pipeline's words in a task of a template, as Open Job Description's own library resolves them."""
    model = pytest.importorskip("openjd.model")
    text = openjd.yaml_text(openjd.describe(experiment, Path("/")).template)
    decoded = model.decode_job_template(template=yaml.safe_load(text))
    folders = {"job_template_dir": Path("/"), "current_working_dir": Path("/")}
    values = model.preprocess_job_parameters(job_template=decoded, job_parameter_values={}, **folders)
    job = model.create_job(job_template=decoded, job_parameter_values=values)
    symbols = model.SymbolTable(source={f"Param.{name}": value.value for name, value in values.items()})
    symbols["Task.Param.Shard"] = "1"
    return [argument.resolve(symtab=symbols) for argument in job.steps[0].script.actions.onRun.args][2:]


def words_of_render_script(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what blender_scripts/render.py gives to the pipeline."""
    spec = importlib.util.spec_from_file_location("render_script", ROOT / "blender_scripts" / "render.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    handed: list[str] = []
    monkeypatch.setitem(sys.modules, "bpy", None)
    monkeypatch.setattr(pipeline, "main", handed.extend)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert script.main() == 0
    return handed


@settings(max_examples=10, deadline=None)
@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=200))
def test_any_text_passes_shards_and_templates(text: str) -> None:
    experiment = resolve(["preset=texture", "scene_count=1", f"texture.pictures={text}", "out=x"])
    shard, task = (resolve(words) for words in (shard_command(experiment, "1/1")[3:], template_arguments(experiment)))
    assert shard.members[0].factors["texture"].pictures == text
    assert task.members[0].factors["texture"].pictures == (text and str(Path(text).absolute()))


def test_what_a_template_cannot_hold_is_refused(tmp_path: Path) -> None:
    for word in (os.fsdecode(b"pictures-\xff"), "x" * 2000 + "{{"):
        experiment = resolve(["preset=texture", "scene_count=1", f"texture.pictures={word}"])
        assert resolve(shard_command(experiment, "1/1")[3:]).members[0].factors["texture"].pictures == word
        with pytest.raises(ConfigError, match="job template"):
            openjd.describe(experiment, Path.cwd())


@pytest.mark.parametrize(
    ("word", "what", "value"),
    [
        ("seed=010", "seed", 10),
        ("frames=010", "frames", 10),
        ("scenes=000010", "scenes", [10]),
        ("scenes=000010-00012,1", "scenes", [1, 10, 11, 12]),
        ("scenes=5,5,5-5", "scenes", [5]),
    ],
)
def test_numbers_are_decimal(word: str, what: str, value: Any) -> None:
    experiment = resolve(["preset=texture", "datasets=0", word])
    content = experiment.members[0].content
    assert ([task.scene_index for task in select(experiment)] if what == "scenes" else getattr(content, what)) == value


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("scenes=1:10", r"scenes=1:10: write all, a number, a range 0-99 or a list 3,7,9; a range is written 1-10"),
        ("scenes=1 0", "scenes=1 0: write all"),
        ("scenes=" + "9" * 5000, "out of range, there are 200"),
        ("datasets=0:1", "a range is written 0-1"),
        ("shard=1 0/20", "shard=1 0/20: write i/n"),
        ("shard=²/3", "write i/n"),
    ],
)
def test_what_cannot_be_meant_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(resolve(["preset=texture", word]))
