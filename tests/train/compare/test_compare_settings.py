"""The keys of a comparison and the names of its methods: what they stand for, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.resources import resource_dir
from megasynth_train.compare.methods import HELD_OUT, builtin, expand, frame_of
from megasynth_train.compare.settings import CompareSettings, training_of, trial_settings

ATTRIBUTES = ("texture", "geometry", "lighting")
NEEDED = ("data=a", "test=b", "out=c")


def settings(*words: str) -> CompareSettings:
    return parse(CompareSettings, [*NEEDED, *words], Help("", ""))


def test_paper_is_a_list_with_every_baseline_and_control() -> None:
    names = expand(["paper", "heads"], ATTRIBUTES, 48)
    assert len(set(names)) == len(names) and names[:3] == ("base", "heads", "full")
    assert {"lora-16", "lora-256", "rslora-16", "dora-16", "pissa-16", "adalora-16", "lora_xs-48"} < set(names)
    assert {"subspace", "subspace-block", "random", "heads-matched"} < set(names)
    assert [name for name in names if name.startswith("without-")] == [f"without-{name}" for name in ATTRIBUTES]
    without = expand(["paper"], (), 64)
    assert not any(map(frame_of, without)) and "heads-matched" not in without and "lora_xs-64" in without
    assert not [name for name in expand(["paper"], ("texture",), 16) if name.startswith("without")]


def test_controls_are_what_is_not_trained() -> None:
    given = settings("methods=[controls,lora]", "basis=b")
    assert given.uses_basis()
    methods = given.resolve(ATTRIBUTES, 48)
    untrained = [method.name for method in methods if method.adapter is None]
    assert untrained[:6] == ["base", "mean", "mean-texture", "mean-geometry", "mean-lighting", "merge-ties"]
    assert untrained[6:] == list(HELD_OUT) and [method.name for method in methods if method.adapter] == ["lora"]
    assert not settings("methods=[mean]", "define.mean.like=lora").uses_basis()  # a name may be used for something else
    with pytest.raises(ConfigError, match="methods=mean needs a basis"):
        settings("methods=[controls]").resolve()
    with pytest.raises(ConfigError, match=r"define.held-out: held-out is not trained"):
        settings("methods=[held-out]", "define.held-out.lr=1").resolve(ATTRIBUTES)


def test_a_trial_trains_as_the_runs_do_and_measures_scenes_that_it_holds_out() -> None:
    given = settings(
        "methods=[lora]", "tune.lr=[1e-3]", "tune.share=0.3", "test.protocol=thuman", "data.validation_share=0"
    )
    training, measure = trial_settings(given, given.resolve()[0], 1e-3, 0, "", "there")
    final = training_of(given, given.resolve()[0], 0, "", "there")
    assert (training.optim.lr, training.data.validation_share, final.data.validation_share) == (1e-3, 0.3, 0)
    assert training.optim.steps == final.optim.steps and training.adapter == final.adapter
    assert (measure.data, measure.split, measure.validation_share) == (("a",), "validation", 0.3)
    assert measure.protocol == "none" and measure.views == 8  # as the protocol measures, on scenes it does not choose
    held_out = settings("methods=[lora]", "tune.lr=[1e-3]", "data.validation_share=0.2")
    assert trial_settings(held_out, held_out.resolve()[0], 1e-3, 0, "", "")[0].data.validation_share == 0.2


@pytest.mark.parametrize(
    ("name", "keys", "basis"),
    [
        ("base", {}, ""),
        ("full", {"mode": "full"}, ""),
        ("lora_xs-12", {"mode": "lora_xs", "rank": 12}, ""),
        ("adalora", {"mode": "adalora"}, ""),
        ("subspace", {"mode": "subspace", "attributes": [], "mask": "full"}, "mined"),
        ("subspace-block", {"mode": "subspace", "attributes": [], "mask": "block_diagonal"}, "mined"),
        ("random", {"mode": "subspace", "attributes": [], "mask": "full"}, "random"),
        ("only-lighting+texture", {"mode": "subspace", "attributes": ["texture", "lighting"], "mask": "full"}, "mined"),
        ("without-texture", {"mode": "subspace", "attributes": ["geometry", "lighting"], "mask": "full"}, "mined"),
        (
            "random-block-without-texture",
            {"mode": "subspace", "attributes": ["geometry", "lighting"], "mask": "block_diagonal"},
            "random",
        ),
    ],
)
def test_a_name_says_mode_attributes_and_basis(name: str, keys: dict[str, object], basis: str) -> None:
    assert builtin(name, ATTRIBUTES) == (keys, basis)


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("loraa-8", ATTRIBUTES, "did you mean lora"),
        ("lora-0", ATTRIBUTES, "whole number above 0, e.g. lora-16"),
        ("dora-x", ATTRIBUTES, "whole number"),
        ("lora-", ATTRIBUTES, "whole number"),
        ("only-textur", ATTRIBUTES, "no attribute 'textur'.*did you mean texture"),
        ("without-texture+geometry+lighting", ATTRIBUTES, "leaves out every attribute"),
        ("subspace", (), "give basis="),
        ("held-out", (), "give basis="),
        ("mean-textur", ATTRIBUTES, "no attribute 'textur'.*did you mean texture"),
        ("held-out-project", ATTRIBUTES, "did you mean held-out-projected"),
        ("heads-matched", (), "give basis="),
        ("mine", (), "define.mine.adapter.mode"),
    ],
)
def test_a_wrong_name_is_explained(name: str, attributes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        builtin(name, attributes)


def test_a_method_is_the_common_keys_then_its_name_then_its_definition() -> None:
    given = settings(
        "methods=[base,lora,slow,slower,full]", "rank=4", "lr=1e-3", "adapter.head_rank=2",
        "define.slow.like=dora-8", "define.slow.lr=1e-4",
        "define.slower.like=slow", "define.slower.optim.weight_decay=0", "define.slower.adapter.alpha=5",
        "define.full.lr=1e-5",
    )  # fmt: skip
    given.check()
    base, lora, slow, slower, full = given.resolve()
    assert base.adapter is None and lora.adapter is not None and slow.adapter is not None
    assert (lora.adapter.mode, lora.adapter.rank, lora.adapter.head_rank, lora.optim.lr) == ("lora", 4, 2, 1e-3)
    assert (slow.adapter.mode, slow.adapter.rank, slow.adapter.head_rank, slow.optim.lr) == ("dora", 8, 2, 1e-4)
    assert slower.adapter is not None and full.adapter is not None
    assert (slower.adapter.rank, slower.adapter.alpha, slower.optim.lr, slower.optim.weight_decay) == (8, 5, 1e-4, 0)
    assert (full.adapter.mode, full.optim.lr) == ("full", 1e-5)
    run = training_of(given, slow, 7, "", "there")
    assert (run.run.seed, run.adapter.seed, run.run.out, run.optim.lr) == (7, 7, "there", 1e-4)
    assert run.optim.steps == given.optim.steps and run.data.width_px == 518  # resolved


def test_a_basis_reaches_the_methods_that_need_one() -> None:
    given = settings("methods=[wide,random]", "basis=b", "define.wide.like=only-texture", "define.wide.lr=1e-2")
    assert given.uses_basis()
    wide, random = given.resolve(ATTRIBUTES, 48)
    assert (wide.basis, random.basis, wide.optim.lr) == ("mined", "random", 1e-2)
    run = training_of(given, wide, 1, "/file", "out")
    assert (run.adapter.mode, run.adapter.basis, run.adapter.attributes) == ("subspace", "/file", ("texture",))
    assert (
        not settings("methods=[lora]").uses_basis() and not settings().uses_basis() and settings("basis=b").uses_basis()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data="], "data= is missing"),
        (["test="], "test.data= is missing"),
        (["out="], "out= is missing"),
        (["seeds=[]"], "seeds= is empty"),
        (["seeds=[1,1]"], "names a seed twice"),
        (["methods="], "methods= is empty"),
        (["seed=3"], "seeds="),
        (["mode=full"], "adapter.mode= cannot be set for a whole comparison"),
        (["adapter.basis=x"], "use basis="),
        (["adapter.seed=1"], "use seeds="),
        (["methods=../up"], "becomes a folder"),
        (["shard=3/2"], "write i/n"),
        (["test.view_ids=[0,0]"], "names a view twice"),
        (["test.split=validation", "test.validation_share=0.3"], "they must be equal"),
        (["tune.lr=[1e-3,1e-3]"], "different rates"),
        (["tune.lr=[0]"], "above 0"),
        (["tune.lr=[1.00000001e-3,1e-3]"], "different rates"),  # of one folder
        (["tune.lr=[1e-4]", "methods=[a]", "define.a.like=lora", "define.a.lr=1e-3"], r"define\.a\.lr= fixes"),
        (["held_out=0"], "held_out=0"),
        (["define.lora=3"], "give keys"),
        (["define.lora.rate=3"], "unknown key define.lora.rate"),
        (["define.lora.adapter=3"], "this is a section"),
        (["define.lora.optim.steps=3"], "same budget"),
        (["define.lora.adapter.seed=3"], "seeds="),
        (["define.mine.adapter.mode=subspace"], "define.mine.like=subspace"),
    ],
)  # fmt: skip
def test_contradicting_keys_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(*words).check()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["methods=a", "define.a.like=b", "define.b.like=a"], "is circular"),
        (["methods=a", "define.a.like=lora", "define.a.adapter.rnk=3"], "method a: unknown key rnk"),
        (["methods=a", "define.a.like=lora", "define.a.lr=-1"], "method a: .*lr=-1"),
        (["methods=base", "define.base.lr=1"], "base is not trained"),
        (["methods=[lora]", "reference=heads"], "reference=heads is not one of the methods"),
    ],
)
def test_definitions_that_do_not_fit_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(*words).resolve()


def test_the_reference_is_the_mined_subspace_if_there_is_one() -> None:
    assert settings().reference_of(["base", "subspace", "random"]) == "subspace"
    assert settings().reference_of(["base", "random"]) == "base"
    assert settings("reference=random").reference_of(["base", "random"]) == "random"
    assert settings().reference_of([]) == ""


def test_the_preset_is_a_comparison() -> None:
    values = yaml.safe_load((resource_dir("presets") / "train" / "compare_tiny.yaml").read_text())
    given = settings(f"config={resource_dir('presets') / 'train' / 'compare_tiny.yaml'}")
    given.check()
    assert [method.name for method in given.resolve()] == values["methods"]


def test_keys_are_checked_without_pytorch() -> None:
    script = "import sys, megasynth_train.compare.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
