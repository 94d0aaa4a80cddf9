"""The training half as stages of the pipeline: settings checked before anything runs, and one whole small run."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import small_experiment
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
import training_runs as runs

from megasynth_attr.core.errors import ConfigError, DatasetError, ExitCode, MegaSynthError
from megasynth_attr.core.pages.chapters import read_chapter
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.core.stages import CostLine, StageRun
from megasynth_attr.pipeline.__main__ import main
from megasynth_attr.pipeline.stages import find_stages, stage_run
from megasynth_attr.scene.config import resolve
from megasynth_train.adapters import load_adapter  # noqa: F401  (PyTorch is imported here, not inside a timed test)
from megasynth_train.adapters.targets import find_targets
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.cost.layers import Tuning
from megasynth_train.cost.step import tuning_of
from megasynth_train.experiment.checks import largest_rank, layer_names
from megasynth_train.experiment.cost import step_seconds
from megasynth_train.experiment.settings import help_sections, stage_settings
from megasynth_train.training.cluster_manifest import ClusterSettings, new_manifest, read_manifest
from megasynth_train.training.settings import AdapterSettings, DataSettings, ModelSettings, TrainSettings
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.model import VGGT

TRAINING = ("pretrain", "cluster", "mine", "compare")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the preset with all datasets; not to be changed."""
    folder = tmp_path_factory.mktemp("datasets")
    small_experiment.write_datasets(small_experiment.write_preset(folder), folder / "out")
    return folder / "out"


@pytest.fixture
def generated(datasets: Path, tmp_path: Path) -> list[str]:
    """Return the words of a run whose stage generate is done, in a folder of its own: ``preset=`` and ``out=``."""
    out = shutil.copytree(datasets, tmp_path / "out")
    return [f"preset={small_experiment.write_preset(tmp_path)}", f"out={out}"]


def run_of(tmp_path: Path, *words: str) -> StageRun:
    preset = small_experiment.write_preset(tmp_path)
    return stage_run(resolve([f"preset={preset}", f"out={tmp_path / 'out'}", *words]), "training")


def costs_of(*words: str, stages: Sequence[str] = TRAINING) -> dict[str, CostLine]:
    """Return what the stages cost, by stage, after all checked their settings."""
    steps = find_stages().steps(resolve([*words, f"stages={','.join(stages)}"]))
    for stage, run in steps:
        stage.check(run)
    return {line.name: line for stage, run in steps for line in stage.cost(run)}


def test_the_stages_are_installed_in_their_order() -> None:
    names = find_stages().names
    assert names[:2] == ["generate", "verify"] and names[-1] == "report"
    assert [name for name in names if name in TRAINING] == list(TRAINING)


def test_stages_inherit_the_section_and_may_say_otherwise(tmp_path: Path) -> None:
    run = run_of(tmp_path, "training.compare.data.views=[3,3]", "training.run.threads=2")
    settings = stage_settings(run)
    assert run.members == {"texture": ("texture_00", "texture_01"), "camera": ("camera_00", "camera_01")}
    assert settings.cluster.optim.steps == 3 and settings.cluster.adapter.rank == 2
    assert settings.pretrain is None and settings.mining.dimension == 2
    compare = settings.compare
    assert compare is not None and compare.optim.steps == 2 and compare.optim.lr == settings.cluster.optim.lr
    assert compare.data.views == Uniform(3, 3) and settings.cluster.data.views == Uniform(2, 2)
    assert compare.run.threads == settings.cluster.run.threads == 2
    assert compare.data.sources == (str(tmp_path / "out/everything_00"),)
    assert compare.test.data == (str(tmp_path / "out/everything_01"),)
    assert compare.adapter.rank == AdapterSettings().rank  # the cluster's adapter is not the comparison's


def test_pretraining_happens_if_it_is_told_how_long_and_the_rest_starts_from_it(tmp_path: Path) -> None:
    settings = stage_settings(run_of(tmp_path, "training.pretrain.optim.steps=5", "training.pretrain.optim.lr=0.5"))
    assert settings.pretrain is not None and settings.compare is not None
    assert (settings.pretrain.optim.steps, settings.pretrain.optim.lr) == (5, 0.5)
    assert settings.pretrain.adapter.mode == "full" and settings.pretrain.adapter.train_encoder
    assert {Path(source).name for source in settings.pretrain.data.sources} == {
        "texture_00", "texture_01", "camera_00", "camera_01",
    }  # fmt: skip
    made = str(tmp_path / "out/training/pretrain/adapter")
    assert settings.cluster.model.checkpoint == settings.compare.model.checkpoint == made
    assert settings.pretrain.model.checkpoint == ""


def test_without_downstream_data_there_is_no_comparison(tmp_path: Path) -> None:
    assert stage_settings(run_of(tmp_path, "downstream=")).compare is None


def test_the_papers_tasks_where_their_folders_are_given(tmp_path: Path) -> None:
    def compared(*words: str) -> CompareSettings:
        run = stage_run(resolve(["preset=paper_human", f"out={tmp_path / 'out'}", *words]), "training")
        settings = stage_settings(run).compare
        assert settings is not None
        return settings

    people = ("downstream.thuman=/t", "downstream.twok2k=/k")
    both = compared(*people)
    assert [Path(folder).name for folder in (*both.data.sources, *both.test.data, *both.across.data)] == [
        "thuman_00", "thuman_01", "twok2k_01",
    ]  # fmt: skip
    assert (both.test.protocol, both.test.views, both.across.protocol) == ("thuman", 8, "twok2k")
    usual = compared()
    assert (usual.test.protocol, usual.across.data) == ("none", ()) and usual.test.data[0].endswith("everything_01")
    for scene in ("set1/scene1", "set1/scene2", "set8/scene1"):
        (tmp_path / "clearpose" / scene).mkdir(parents=True)
        (tmp_path / "clearpose" / scene / "metadata.mat").touch()
    glass = compared(f"downstream.clearpose={tmp_path / 'clearpose'}")
    assert [Path(source).name for source in glass.data.sources] == ["scene1"] and glass.test.views == 12
    assert glass.data.sources[0].endswith("set1/scene1")
    free = compared(*people, "training.compare.test.protocol=none", "training.compare.test.views=3")
    assert (free.test.protocol, free.test.views) == ("none", 3)
    with pytest.raises(ConfigError, match=r"training\.compare: test\.views=3: protocol=thuman fixes views=8"):
        compared(*people, "training.compare.test.views=3")
    with pytest.raises(DatasetError, match=r"downstream\.clearpose=/nowhere: there is no such folder"):
        compared("downstream.clearpose=/nowhere")
    # what was compared before there were protocols is compared as it was
    spoof = stage_run(resolve(["preset=paper_spoof", f"out={tmp_path / 'out'}"]), "training")
    assert stage_settings(spoof).compare.test.protocol == "none"  # type: ignore[union-attr]
    plan = costs_of("preset=paper_human", f"out={tmp_path}", "training.model.checkpoint=", *people, stages=("compare",))
    assert "tested on thuman_01 by protocol thuman and twok2k_01 by protocol twok2k, across domains" in str(plan)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("training.optim.stpes=3", "training.optim.stpes (did you mean training.optim.steps"),
        ("training.mining.dimension=0", "training.mining.dimension=0: must be at least 1"),
        ("training.adapter.mode=lorra", "must be one of"),
        ("training.compare.methods=[heads,lora-x]", "training.compare: methods=lora-x"),
        ("training.compare.methods=[only-colour]", "the basis has no attribute 'colour'"),
        ("training.compare.adapter.mode=dora", "methods="),
        ("training.data.sources=[x]", "training.data.sources= cannot be set in a pipeline"),
        ("training.run.out=x", "training.run.out= cannot be set"),
        ("training.compare.run.out=x", "training.compare.run.out= cannot be set"),
        ("training.compare.basis=x", "training.compare.basis= cannot be set"),
        ("training.model.checkpoint=shipped:nothing", "no such model comes with the project"),
        (
            "training.model.checkpoint=weights/none.pt",
            "training.model.checkpoint: checkpoint weights/none.pt is neither",
        ),
        ("training.adapter.mode=full", "training.adapter.mode=full changes all weights, but the stage mine needs"),
        ("training.adapter.mode=heads", "adapts no layer of the aggregator"),
        ("training.adapter.mode=subspace", "training.adapter.mode=subspace needs training.adapter.basis="),
        ("training.adapter.targets=(", "training.adapter.targets=(: not a regular expression"),
        ("training.adapter.targets=camera_head\\..*", "matches no layer of the aggregator of vggt-tiny"),
        ("training.adapter.targets=aggregator\\.frame_blocks\\.4\\..*", "matches no layer of the aggregator"),
        (
            "training.adapter.rank=99999",
            "training.adapter.rank=99999: no layer of vggt-tiny can have a rank above 192",
        ),
        (
            "training.mining.attributes=[textures]",
            "training.mining.attributes=textures: the cluster has no such attribute",
        ),
        ("training.mining.modules=[", "training.mining.modules="),
        ("training.mining.modules=.*mlp.fc3", "training.mining.modules=.*mlp.fc3 matches no linear layer of vggt-tiny"),
        (
            "training.compare.test.width_px=30",
            "training.compare.test.width_px=30 is not a multiple of the patch size 14",
        ),
        ("training.data.width_px=30", "training.data.width_px=30 is not a multiple of the patch size 14"),
        ("training.compare.methods=[lora-99999]", "method lora-99999"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path: Path, word: str, message: str) -> None:
    preset = small_experiment.write_preset(tmp_path)
    with pytest.raises(MegaSynthError) as caught:
        words = ["stages=generate,cluster,mine,compare", "blender=/no/such", word]
        main([f"preset={preset}", f"out={tmp_path / 'out'}", *words])
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("word", "stages"),
    [
        ("training.adapter.mode=full", ("cluster",)),
        ("training.compare.test.width_px=30", ("cluster", "mine")),
        ("training.mining.modules=.*fc3", ("cluster", "compare")),
        (r"training.mining.modules=camera_head\.trunk\..*", TRAINING),
        (r"training.adapter.targets=aggregator\.global_blocks\.3\.attn\.(qkv|proj)", TRAINING),
    ],
)
def test_what_no_chosen_stage_refuses_is_no_mistake(tmp_path: Path, word: str, stages: tuple[str, ...]) -> None:
    preset = small_experiment.write_preset(tmp_path)
    found = costs_of(f"preset={preset}", f"out={tmp_path / 'out'}", word, stages=stages)
    assert list(found) == [stage for stage in stages if stage != "pretrain"]  # the shipped weights need none


def test_the_checks_know_every_linear_and_the_largest_rank() -> None:
    for size in ("vggt-tiny", "vggt-1b"):
        config = named_config(size, point_head=False)
        with torch.device("meta"):
            model = VGGT(config)
        modules = {name: model.get_submodule(name) for name in find_targets(model).all}
        linears = {name for name, module in modules.items() if isinstance(module, nn.Linear)}
        assert set(layer_names(config)) == linears
        weights = [module.weight for module in modules.values() if isinstance(module, nn.Linear | nn.Conv2d)]
        assert largest_rank(config) == max(min(weight.flatten(1).shape) for weight in weights)


def test_keys_for_the_training_half_are_checked_whatever_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.optim\.stepz \(did you mean training\.optim\.steps"):
        main(["preset=texture", "training.optim.stepz=3", f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_help_has_every_section_once() -> None:
    names = list(help_sections())
    assert names[0] == "training" and len(set(names)) == len(names)
    assert {"training.optim", "training.mining", "training.compare", "training.compare.test"} <= set(names)


def test_the_papers_cluster_costs_what_its_steps_cost() -> None:
    """0.83 s a step (benchmarks/train_step.md) × 24,000 steps × 40 adapters."""
    costs = costs_of("preset=paper_human")
    seconds = costs["cluster"].seconds
    assert seconds is not None and seconds / 3600 == pytest.approx(40 * 24_000 * 0.83 / 3600, rel=0.02)
    assert "40 adapters × 24,000 steps of vggt-1b" in costs["cluster"].text
    assert "computed" in costs["cluster"].text and "H200" in costs["compare"].text


def test_a_step_on_processors_is_estimated_within_a_factor_of_three() -> None:
    """docs/training.md: four adapters of 100 steps took 96 s on two cores, start-up included."""
    settings = TrainSettings(
        model=ModelSettings(size="vggt-tiny"),
        data=DataSettings(width_px=98, views=Uniform(2, 4), images_per_step=8),
        adapter=AdapterSettings(rank=4),
    )
    assert 0.08 < step_seconds(settings) < 0.72


def test_numbers_of_views_that_are_never_drawn_cost_nothing() -> None:
    """images_per_step caps the views of a scene, here and in the comparison's plan alike."""
    settings = TrainSettings(model=ModelSettings(size="vggt-tiny"), data=DataSettings(width_px=98, images_per_step=8))
    capped = replace(settings, data=replace(settings.data, views=Uniform(4, 8)))
    assert settings.data.views == Uniform(4, 16) and step_seconds(settings) == step_seconds(capped)
    heads = AdapterSettings(mode="heads", rank=4)
    assert tuning_of(heads).head_rank == 4 and tuning_of(AdapterSettings(mode="pissa", rank=4)).head_rank == 16
    assert tuning_of(AdapterSettings(mode="subspace"), 24) == Tuning("basis", 24, 16)


def test_finished_runs_cost_nothing_more(tmp_path: Path) -> None:
    words = [f"preset={small_experiment.write_preset(tmp_path)}", f"out={tmp_path / 'out'}"]
    before = costs_of(*words)["cluster"].seconds
    done = tmp_path / "out/training/cluster/texture_00/done.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    after = costs_of(*words)["cluster"]
    assert before is not None and after.seconds == pytest.approx(0.75 * before) and "3 of 4" in after.text


def test_training_stages_need_the_datasets(datasets: Path, tmp_path: Path) -> None:
    preset = small_experiment.write_preset(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("not an experiment")
    with pytest.raises(DatasetError, match=r"there is no experiment here; run the stage generate first"):
        main([f"preset={preset}", "stages=mine", f"out={tmp_path / 'out'}"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match="no downstream data"):
        main([f"preset={preset}", "stages=compare", "downstream=", f"out={tmp_path / 'out'}"])
    shutil.copytree(datasets, tmp_path / "out", dirs_exist_ok=True)
    with pytest.raises(DatasetError, match="run the stage cluster first"):
        main([f"preset={preset}", "stages=mine", f"out={tmp_path / 'out'}"])
    shutil.rmtree(tmp_path / "out/texture_00")
    with pytest.raises(DatasetError, match=r"texture_00 does not exist yet; run the stage generate first"):
        main([f"preset={preset}", "stages=cluster", f"out={tmp_path / 'out'}"])
    with pytest.raises(DatasetError, match="run the stage pretrain first"):
        words = ["stages=cluster", "training.pretrain.optim.steps=1"]
        main([f"preset={preset}", *words, f"out={tmp_path / 'out'}"])


def test_a_cluster_of_the_experiment_leaves_the_downstream_data_alone(datasets: Path) -> None:
    manifest = new_manifest(ClusterSettings(experiment=str(datasets), model=ModelSettings(size="vggt-tiny")))
    assert sorted(manifest["adapters"]) == ["camera_00", "camera_01", "texture_00", "texture_01"]


@pytest.mark.slow
def test_the_whole_run_and_the_same_command_again(
    generated: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # one kind of layer: each kind has a figure, which costs more than all the training
    chosen = ["stages=pretrain,cluster,mine,compare,report", "training.mining.modules=.*attn.qkv"]
    out, words = tmp_path / "out", [*generated, *chosen]
    main(words)
    training = out / "training"
    manifest = read_manifest(training / "cluster")
    assert sorted(manifest["adapters"]) == ["camera_00", "camera_01", "texture_00", "texture_01"]
    assert (training / "subspaces/all.safetensors").is_file()
    assert sorted(p.name for p in (training / "comparison/runs").iterdir()) == ["base", "heads", "subspace"]
    chapters = [read_chapter(training / name) for name in ("cluster", "subspaces", "comparison")]
    assert all(chapter is not None and chapter.lead and chapter.caveat for chapter in chapters)
    page = (out / "report/index.html").read_text(encoding="utf-8")
    assert [name for name in ("cluster", "subspaces", "comparison") if f'id="training-{name}"' not in page] == []
    assert "is no longer there" not in page

    results = [p for p in training.rglob("*") if p.suffix in (".safetensors", ".json") and "tmp" not in p.parts]
    before = {p: p.read_bytes() for p in results if p.name not in ("chapter.json",)}
    capfd.readouterr()
    main([*words, "from=cluster"])
    assert "nothing to do" in capfd.readouterr().err
    assert {p: p.read_bytes() for p in before} == before
    with pytest.raises(ConfigError, match="steps"):  # another cluster does not take this one's place
        main([*words, "training.optim.steps=4"])
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.slow
def test_a_stage_that_is_told_to_stop_exits_with_75_and_resumes(generated: list[str], tmp_path: Path) -> None:
    out, words = tmp_path / "out", [*generated, "stages=cluster"]
    process = runs.start(runs.command_line, words, {}, tmp_path / "log", main)
    try:
        end = time.monotonic() + 300
        while not list(out.glob("training/cluster/*/metrics.jsonl")):
            assert time.monotonic() < end and process.is_alive()
            time.sleep(0.05)
        process.terminate()
        process.join(300)
    finally:
        process.kill()
    said = (tmp_path / "log").read_text()
    assert process.exitcode == ExitCode.INTERRUPTED, said
    assert "Interrupted: stopped by SIGTERM" in said
    main(words)
    assert len(list(out.glob("training/cluster/*/done.json"))) == 4
