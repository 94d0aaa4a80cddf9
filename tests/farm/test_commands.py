"""Commands for farms that run commands: the same words in any folder, through a shell, xargs and GNU parallel."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import runs
from literal_words import WORDS
from runs import Reference

from megasynth_attr.core.errors import ConfigError, ExitCode, run_main
from megasynth_attr.farm.commands import commands, main
from megasynth_attr.farm.elsewhere import files_read, portable
from megasynth_attr.farm.slurm import check_executor
from megasynth_attr.scene.config import dataset_identity, resolve

RUNNERS = {
    "xargs": ["sh", "-c", r"tr '\n' '\0' | xargs -0 -n 1 -P 2 sh -c"],
    "parallel": ["parallel", "--jobs", "2"],
}


def words_of(line: str) -> list[str]:
    words = shlex.split(line)
    return words[words.index("megasynth_attr.pipeline") + 1 :]


def listed(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "megasynth_attr.farm.commands", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=runs.environment(), capture_output=True, text=True, check=False)


def test_the_lines_run_and_make_the_same_bytes(reference: Reference, tmp_path: Path) -> None:
    (tmp_path / "it's").mkdir()
    out, words = tmp_path / "it's" / "here", [*runs.TINY, "workers=1", "out=it's/here"]
    done = listed(*words, "shards=2", cwd=tmp_path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2, done.stderr
    for runner, command in RUNNERS.items():  # the first renders, the others find everything there
        if shutil.which(runner) is not None:
            ran = subprocess.run(command, input=done.stdout, cwd="/", capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stdout + ran.stderr
            assert ("0 to render" in ran.stdout) == (runner != "xargs")
            assert runs.tree_hash(out) == reference.hash
    finish = listed(*words, "finish=true", cwd=tmp_path).stdout
    assert done.stderr == f"2 commands; when all have ended with 0:\n{finish}"
    assert subprocess.run(["sh"], input=finish, text=True, cwd="/", check=False).returncode == 0
    assert (out / "geometry_00" / "verify.json").is_file() and (out / "report" / "index.html").is_file()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with presets, a plugin and settings that name each other in relation to it."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "dusk.yaml").write_text("extends: sub/base.yaml\nattribute: dusk\nlighting: {sun_count: 1}\n")
    (tmp_path / "sub" / "base.yaml").write_text("extends: lighting\ntexture: {pictures: pics}\n")
    plugin = (Path(__file__).with_name("mischief.py")).read_text(encoding="utf-8")
    (tmp_path / "sub" / "fog.py").write_text(plugin.replace('"mischief"', '"fog"'), encoding="utf-8")
    (tmp_path / "more.yaml").write_text("cache: kept\nscene_count: 4\nfog: {'on': true}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_words_of_a_slurm_run_are_not_passed_on(tmp_path: Path) -> None:
    """A run refuses detach=true without executor=slurm."""
    (line,), finish = commands(resolve(["preset=geometry", "executor=slurm", "detach=true", f"out={tmp_path}"]), 1)
    for words in (words_of(line), words_of(finish)):
        check_executor(resolve(words).run)


def test_paths_in_words_and_files_become_absolute(folder: Path) -> None:
    given = ["preset=dusk.yaml", "config=more.yaml", "plugins=[sub/fog.py]", "texture.bank=banks/a b"]
    experiment = resolve([*given, "datasets=0", "scenes=0-1"])
    (line,), finish = commands(experiment, 1)
    words = words_of(line)
    assert words == [
        f"preset={folder}/dusk.yaml",
        f"config={folder}/more.yaml",
        f"plugins=[{folder}/sub/fog.py]",
        f"texture.bank={folder}/banks/a b",
        "datasets=0",
        "scenes=0-1",
        f"cache={folder}/kept",
        f"texture.pictures={folder}/pics",
        f"out={folder}/runs/dusk",
        "stages=generate",
        "shard=1/1",
        "executor=local",
    ]
    assert words_of(finish)[-2:] == ["stages=generate,verify,report", "executor=local"]
    names = [path.relative_to(folder).as_posix() for path in files_read(portable(experiment))]
    assert names == ["dusk.yaml", "sub/base.yaml", "more.yaml"]
    here, there = (dataset_identity(one.members[0].to_record()) for one in (experiment, resolve(words)))
    assert here == there, "a folder may go on with other paths to the same things"


def test_words_of_other_stages_and_of_the_split_are_left_out() -> None:
    words = ["preset=demo", "frames=3", "training.optim.steps=9", "from=verify", "stages=report", "plan=true"]
    assert [str(one) for one in portable(resolve(words))] == ["preset=demo", "frames=3"]


@pytest.mark.parametrize("word", [word for word in WORDS if word.isprintable()])
def test_every_text_arrives(word: str) -> None:
    experiment = resolve(["preset=texture", "scene_count=1", f"partition={word}", f"out={word}/x"])
    (line, *_), _ = commands(experiment, 0)
    found = resolve(words_of(line))
    assert found.run.partition == word and found.out == experiment.out


def test_what_would_mean_something_else_elsewhere_is_refused(folder: Path) -> None:
    (folder / "here.yaml").write_text("extends: lighting\n")
    (folder / "sub" / "dusk.yaml").write_text("extends: here.yaml\nattribute: dusk\n")  # which is not beside it
    with pytest.raises(ConfigError, match=r"in another folder .*here\.yaml: there is no such file; name files by abs"):
        portable(resolve(["preset=sub/dusk.yaml"]))
    (folder / "one.yaml").write_text("extends: geometry\ntexture: {bank: banks/one}\n")
    with pytest.raises(ConfigError, match=r"texture\.bank=.*banks/one is relative .* make it absolute there"):
        portable(resolve(["preset=demo", "members=[one.yaml,lighting]"]))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("shards=5", "shards=5: only 4 scenes are selected; give at most as many shards"),
        ("shards=-1", "shards=-1: must be at least 0"),
        ("shard=1/2", "shard=1/2: all shards are written here; leave it out, or choose scenes="),
        ("partition=two\nlines", "cannot be printed in one line; put the key into a file, config=FILE"),
        ("presett=demo", "unknown key presett"),
    ],
)
def test_wrong_words(word: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(main, [*runs.TINY, word]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert not out and err.startswith("ConfigError: ") and said in err and len(err.splitlines()) == 1
