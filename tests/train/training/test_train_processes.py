"""Every training program as two processes, by torchrun or accelerate: one result, one voice, one exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import training_runs as runs
from ddp_runs import train_by_hand
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "compare"))

import compare_runs

from megasynth_attr.core.command.program import parse
from megasynth_attr.core.errors import ConfigError, ExitCode
from megasynth_train import cluster, export_lora, finetune, mine, predict
from megasynth_train.compare import __main__ as compare
from megasynth_train.evaluate import __main__ as evaluate
from megasynth_train.spoof import __main__ as spoof
from megasynth_train.training import processes
from megasynth_train.training.cluster_manifest import ClusterSettings

WORDS = [word for word in compare_runs.WORDS if not word.startswith("test.")]
ACCELERATE = (
    "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no",
    "--dynamo_backend=no",
)  # fmt: skip


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare_runs.write_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def trained(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster that two processes have trained, started by accelerate, which takes torchrun's launcher for it."""
    out = tmp_path_factory.mktemp("trained") / "cluster"
    command = [sys.executable, "-m", *ACCELERATE, f"--main_process_port={runs.free_port()}"]
    words = ["megasynth_train.cluster", f"experiment={experiment}", f"out={out}", *WORDS]
    done = subprocess.run([*command, "-m", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("texture_00  trained") == done.stdout.count("objective") == 1, done.stdout
    return out


@pytest.mark.slow
def test_a_cluster_of_two_processes_has_the_adapters_of_one(trained: Path, experiment: Path, tmp_path: Path) -> None:
    settings = parse(ClusterSettings, [f"experiment={experiment}", f"out={trained}", *WORDS], cluster.HELP)
    manifest = json.loads((trained / "cluster.json").read_text())
    for name, entry in manifest["adapters"].items():
        common = settings.training()
        weights, _ = train_by_hand(
            replace(
                common,
                data=replace(common.data, sources=(str(experiment / name),)),
                adapter=replace(common.adapter, seed=entry["seed"]),
            )
        )
        found = load_file(trained / name / "checkpoints" / "step_00000002" / "weights.safetensors")
        assert found.keys() == weights.keys()
        for key, expected in weights.items():
            close = torch.isclose(found[key], expected, rtol=1e-3, atol=2e-4)  # see test_train_loop on AdamW
            assert close.float().mean() > 0.97, key
    single = runs.train_here(experiment / "texture_00", tmp_path, *WORDS, "run.validate_every=0").result
    one, two = single, trained / "texture_00" / "adapter"
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())
    assert (one / "adapter_config.json").read_bytes() == (two / "adapter_config.json").read_bytes()
    tensors = [load_file(folder / "adapter_model.safetensors") for folder in (one, two)]
    assert [(name, t.shape, t.dtype) for name, t in tensors[0].items()] == [
        (name, t.shape, t.dtype) for name, t in tensors[1].items()
    ]


@pytest.mark.slow
def test_what_two_processes_trained_goes_through_every_program(
    trained: Path, experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mined, run = tmp_path / "mined", tmp_path / "run"
    mine.main([
        f"cluster={trained}", f"out={mined}", "mining.dimension=2", "mining.null_draws=3", "mining.splits=1",
        "run.workers=1", "run.progress=false", "run.figures=false",
        r"mining.modules=aggregator\.frame_blocks\.0\..*", "mining.all_extractors=false",
    ])  # fmt: skip
    words = (f"data={experiment / 'texture_00'}", f"out={run}", "mode=subspace", f"basis={mined / 'all.safetensors'}")
    codes, said = runs.together(tmp_path / "log", [*words, *WORDS])
    assert codes == [0, 0] and said.count("2 steps, 0 skipped") == 1, said
    adapter = f"adapter={run / 'adapter'}"
    export_lora.main([adapter, f"out={tmp_path / 'lora'}"])
    measured = [word for word in compare_runs.WORDS if word.startswith("test.")]
    evaluate.main([
        adapter, f"data={experiment / 'texture_01'}", f"out={tmp_path / 'evaluation'}", "model=vggt-tiny", "device=cpu",
        *(word.removeprefix("test.") for word in measured),
    ])  # fmt: skip
    images = next((experiment / "texture_01").glob("**/rgb"))
    for number, folder in enumerate((run / "adapter", trained / "texture_00" / "adapter", tmp_path / "lora")):
        out = tmp_path / f"predicted{number}"
        small = ("model=vggt-tiny", "device=cpu", "width_px=28", "max_views=2", "overview=false")
        predict.main([f"adapter={folder}", f"images={images}", f"out={out}", *small])
        assert (out / "predictions.npz").is_file()
    capsys.readouterr()


@pytest.mark.slow
def test_a_comparison_of_two_processes_has_one_voice_and_continues(experiment: Path, tmp_path: Path) -> None:
    words = compare_runs.words(experiment, tmp_path / "out", "methods=[base,heads]", "seeds=[0]")
    codes, said = runs.together(tmp_path / "log", words, compare.main)
    assert codes == [0, 0] and said.count("# Comparison of methods") == said.count("2 runs, 0 failed") == 1, said
    codes, said = runs.together(tmp_path / "again", [*words, "plan=true"], compare.main)
    assert codes == [0, 0] and said.count("1 trainings of 2 steps") == 1


@pytest.mark.slow
def test_a_range_test_of_two_processes_is_one(experiment: Path, tmp_path: Path) -> None:
    words = [f"data={experiment / 'texture_00'}", f"out={tmp_path / 'run'}", *WORDS, "lr_find=true", "lr_find_steps=40"]
    codes, said = runs.together(tmp_path / "log", words)
    assert codes == [0, 0] and said.count("1e-5 is the released learning rate") == 1, said
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["lr_find.json", "lr_find.png"]


def test_what_is_wrong_is_said_once(experiment: Path, tmp_path: Path) -> None:
    data = f"data={experiment / 'texture_00'}"
    many = [f"experiment={experiment}", f"out={tmp_path / 'no'}", *WORDS, "data.width_px=29"]
    for program, words, message in (
        (finetune.main, [data, "stesp=3"], "ConfigError: unknown key stesp"),
        (cluster.main, many, "ConfigError: data.width_px=29"),
        (compare.main, compare_runs.words(experiment, tmp_path / "no", "methods=[lroa]"), "ConfigError: "),
    ):
        log = tmp_path / program.__module__
        codes, said = runs.together(log, list({w.partition("=")[0]: w for w in words}.values()), program)
        assert codes == [ExitCode.USAGE] * 2 and said.count(message) == 1, said
        assert "Traceback" not in said and not (tmp_path / "no").exists()


def spoil_one_scene(experiment: Path, name: str, out: Path) -> Path:
    """Return a copy of a dataset in which one of the two scenes cannot be read, so that one process fails alone."""
    copy = shutil.copytree(experiment / name, out / name)
    for file in (copy / "scenes" / "000" / "000000").rglob("*.exr"):
        file.write_bytes(b"damaged")
    return copy


def test_a_process_that_fails_alone_ends_the_others_with_its_words(experiment: Path, tmp_path: Path) -> None:
    data = spoil_one_scene(experiment, "texture_00", tmp_path)
    words = [f"data={data}", f"out={tmp_path / 'run'}", *WORDS]
    codes, said = runs.together(tmp_path / "log", words, finetune_in_a_hurry)
    assert codes == [ExitCode.USAGE] * 2 and said.count("DatasetError: ") == 1 and "Traceback" not in said, said


def finetune_in_a_hurry(words: list[str]) -> None:
    processes._TOGETHER_S = 2.0
    finetune.main(words)


def cluster_in_a_hurry(words: list[str]) -> None:
    processes._TOGETHER_S = 2.0
    cluster.main(words)


def test_a_cluster_ends_where_one_process_alone_fails_and_goes_on_where_all_do(
    experiment: Path, tmp_path: Path
) -> None:
    """A process cannot go on to the next dataset while the others are in the middle of a step."""
    broken = tmp_path / "broken"
    for name in ("texture_00", "texture_01"):
        spoil_one_scene(experiment, name, broken)
    words = [f"experiment={broken}", f"out={tmp_path / 'alone'}", *WORDS]
    codes, said = runs.together(tmp_path / "log", words, cluster_in_a_hurry)
    assert codes == [ExitCode.USAGE] * 2 and said.count("DatasetError: ") == 1, said
    for file in broken.rglob("*.exr"):
        file.write_bytes(b"damaged")
    codes, said = runs.together(tmp_path / "log2", [*words, f"out={tmp_path / 'all'}"], cluster.main)
    assert codes == [ExitCode.SCENES_FAILED] * 2 and said.count("2 of 2 adapters failed") == 1, said


def test_a_process_that_ends_without_a_word_is_an_environment_problem(experiment: Path, tmp_path: Path) -> None:
    """The other waits in its first exchange; one that comes later than the end could not tell."""
    words = [f"data={experiment / 'texture_00'}", f"out={tmp_path / 'run'}", *WORDS]
    codes, said = runs.together(tmp_path / "log", words, dying_in_the_first_step)
    assert codes == [ExitCode.ENVIRONMENT, 9] and "has ended without a word" in said, said


def dying_in_the_first_step(words: list[str]) -> None:
    if os.environ["RANK"] == "1":
        finetune.Run.batches = lambda *arguments, **more: os._exit(9)  # type: ignore[method-assign]
    finetune_in_a_hurry(words)


@pytest.mark.parametrize("program", [predict, evaluate, mine, spoof], ids=lambda module: module.__name__)
def test_programs_of_one_process_refuse_to_be_several(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in runs.ranks(2)[0].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r" was started 2 times by torchrun .*: start it by itself$"):
        program.main([])


def test_a_launcher_that_starts_one_process_instead_of_several_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As accelerate launch --cpu --num_processes=2 does."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(ConfigError, match="was asked for several processes but started one"):
        processes.make_accelerator("cpu")
