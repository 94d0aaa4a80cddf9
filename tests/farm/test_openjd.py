"""The Open Job Description template and the job bundle, with the real program that checks and runs templates."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import yaml
from runs import Reference

from megasynth_attr.core.errors import ConfigError, ExitCode, run_main
from megasynth_attr.farm.openjd import describe, main, yaml_text
from megasynth_attr.scene.config import resolve


@pytest.fixture(scope="module")
def openjd() -> str:
    found = shutil.which("openjd") or str(Path(sys.executable).with_name("openjd"))
    if not Path(found).exists():
        pytest.skip("openjd-cli is not installed (pip install megasynth-attr[dev])")
    return found


def run(*command: object, cwd: Path) -> str:
    """Return what a command says; fails if it fails."""
    words = list(map(str, command))
    done = subprocess.run(
        words, cwd=cwd, env=runs.environment(), capture_output=True, text=True, timeout=runs.LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_keys_of_stages_that_a_job_does_not_run_stay_here() -> None:
    job = describe(resolve(["preset=demo", "frames=3", "training.optim.steps=9"]), Path("/"))
    text = yaml_text(job.template)
    assert "frames=3" in text and "training" not in text


def test_the_openjd_template_is_valid_and_runs(reference: Reference, tmp_path: Path, openjd: str) -> None:
    """Relative words, words with braces, and folders that the worker has elsewhere, which a farm's rules map."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.yaml").write_text("extends: demo\n")
    (tmp_path / "tiny.yaml").write_text("extends: sub/base.yaml\n")
    words = [*runs.TINY[1:], "preset=tiny.yaml", "workers=1", "out=out", "cache=/elsewhere/cache", "shards=2"]
    words.append("partition={{Param.Out}} }}{{ {x}")  # which a run here does not use, and records
    run(sys.executable, "-m", "megasynth_attr.farm.openjd", *words, "file=tiny.openjd.yaml", cwd=tmp_path)
    run(openjd, "check", "tiny.openjd.yaml", cwd=tmp_path)
    (tmp_path / "away").mkdir()
    rule = {"source_path_format": "POSIX", "source_path": "/elsewhere", "destination_path": str(tmp_path / "away")}
    rules = json.dumps({"version": "pathmapping-1.0", "path_mapping_rules": [rule]})
    options = ["-p", "Cache=/elsewhere/cache", "-p", "Out=/elsewhere/out", "--path-mapping-rules", rules]
    task = ["--step", "Generate", "-p", "Shards=4", "--tasks", '[{"Shard": 2}]']
    said = run(openjd, "run", tmp_path / "tiny.openjd.yaml", *options, *task, cwd=tmp_path / "sub")
    out = tmp_path / "away" / "out"
    assert "openjd_progress: 100.0" in said
    (start, *_) = map(json.loads, next(out.glob("events/*.jsonl")).read_text().splitlines())
    assert start["run"]["partition"] == "{{Param.Out}} }}{{ {x}"
    assert runs.complete_scenes(out) == ["000001"] and (tmp_path / "away" / "cache").is_dir()
    ours, theirs = (path / "geometry_00/scenes/000/000001/checksums.json" for path in (out, reference.out))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_bundle_holds_what_a_farm_must_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openjd: str) -> None:
    (tmp_path / "base.yaml").write_text("extends: lighting\n")
    (tmp_path / "dusk.yaml").write_text("extends: base.yaml\nattribute: dusk\n")
    (tmp_path / "more.yaml").write_text("scene_count: 400\ntexture: {bank: banks/a}\n")
    monkeypatch.chdir(tmp_path)
    words = ["preset=dusk.yaml", "config=more.yaml", "out=/shared/dusk", "device=cuda", "partition={{x}}", "shards=64"]
    assert run_main(main, [*words, "bundle=job"]) == ExitCode.DONE
    template, values, references = (
        yaml.safe_load((tmp_path / "job" / name).read_text())
        for name in ("template.yaml", "parameter_values.yaml", "asset_references.yaml")
    )
    run(openjd, "check", "job/template.yaml", cwd=tmp_path)
    given = {one["name"]: one["value"] for one in values["parameterValues"]}
    assert given == {
        "Out": "/shared/dusk",
        "Preset": f"{tmp_path}/dusk.yaml",
        "Config": f"{tmp_path}/more.yaml",
        "TextureBank": f"{tmp_path}/banks/a",
    }
    assert references["assetReferences"]["inputs"]["filenames"] == [f"{tmp_path}/base.yaml"]
    parameters = {one["name"]: one for one in template["parameterDefinitions"]}
    assert parameters.keys() == given.keys() | {"Shards", "Python", "Word1"}
    assert all(one["description"] and one["userInterface"]["control"] for one in parameters.values())
    assert (parameters["Out"]["objectType"], parameters["Out"]["dataFlow"]) == ("DIRECTORY", "OUT")
    assert (parameters["Preset"]["objectType"], parameters["Preset"]["dataFlow"]) == ("FILE", "IN")
    assert parameters["Shards"]["default"] == 64 and parameters["Word1"]["default"] == "partition={{x}}"
    generate, finish = template["steps"]
    amounts = {one["name"]: one["min"] for one in generate["hostRequirements"]["amounts"]}
    assert amounts == {"amount.worker.vcpu": 4, "amount.worker.memory": 2862, "amount.worker.gpu": 1}
    assert "amounts" not in finish["hostRequirements"] and finish["dependencies"] == [{"dependsOn": "Generate"}]
    assert "texture.bank={{Param.TextureBank}}" in generate["script"]["actions"]["onRun"]["args"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["file=a.yaml", "bundle=b"], "file=a.yaml bundle=b: give one of the two"),
        (["shards=3"], "shards=3: only 1 scenes are selected; give at most as many shards"),
        (["file=none/a.yaml"], "the folder none does not exist"),
        (["shard=1/2"], "all shards are written here; leave it out"),
    ],
)
def test_wrong_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(main, ["preset=texture", "dataset_count=1", "scene_count=1", *words]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_braces_and_many_files(tmp_path: Path, openjd: str) -> None:
    """A template with a brace of the format's language, or with more than 50 parameters, is refused by every farm."""
    (tmp_path / "a}}{{b.yaml").write_text("extends: texture\n")
    words = [f"preset={tmp_path / 'a}}{{b.yaml'}", "partition=}}", f"out={tmp_path / '}}'}"]
    (tmp_path / "job.yaml").write_text(yaml_text(describe(resolve(words), tmp_path).template))
    run(openjd, "check", "job.yaml", cwd=tmp_path)
    members = [tmp_path / f"m{number}.yaml" for number in range(50)]
    for number, file in enumerate(members):
        file.write_text(f"extends: texture\nattribute: a{number}\n")
    few, many = ([f"members=[{','.join(map(str, some))}]", "out=x"] for some in (members[:40], members))
    assert len(describe(resolve(few), tmp_path).template["parameterDefinitions"]) == 43
    with pytest.raises(ConfigError, match="a job template has at most 50 parameters"):
        describe(resolve(many), tmp_path)


def test_a_list_takes_no_path_with_an_apostrophe(tmp_path: Path) -> None:
    plugin = tmp_path / "it's.py"
    plugin.write_bytes(Path(__file__).with_name("mischief.py").read_bytes())
    with pytest.raises(ConfigError, match="no path has an apostrophe; rename it"):
        describe(resolve(["preset=texture", "scene_count=1", f"plugins={plugin}"]), tmp_path)
