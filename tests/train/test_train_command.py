"""Words to settings: short keys, single values for lists, and messages that name what is wrong."""

from dataclasses import dataclass, field

import pytest

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import setting
from megasynth_attr.core.ranges import Uniform
from megasynth_train.command import Help, parse
from megasynth_train.evaluate.options import EvaluateSettings
from megasynth_train.training.settings import DataSettings, ModelSettings, TrainSettings

HELP = Help("python -m program data=FOLDER", "Does a thing.", ("python -m program data=x",))


def test_short_words_and_single_values():
    settings = parse(TrainSettings, ["data=runs/a", "model=vggt-tiny", "data.views=8", "--steps=7", "lr=1e-4"], HELP)
    assert settings.data.sources == ("runs/a",)
    assert settings.data.views == Uniform(8, 8)
    assert settings.model.size == "vggt-tiny"
    assert settings.optim.steps == 7 and settings.optim.lr == 1e-4
    assert settings.loss == TrainSettings().loss


def test_one_number_for_a_list_of_numbers():
    assert parse(EvaluateSettings, ["view_ids=3"], HELP).view_ids == (3,)
    assert parse(TrainSettings, ["data=3"], HELP).data.sources == ("3",)


def test_nothing_is_empty_text_or_an_empty_list():
    settings = parse(TrainSettings, ["out=", "data=", "checkpoint="], HELP)
    assert (settings.run.out, settings.data.sources, settings.model.checkpoint) == ("", (), "")


def test_words_override_the_file_which_overrides_defaults(tmp_path):
    (tmp_path / "run.yaml").write_text("optim: {steps: 5, lr: 0.5}\ndata: {sources: [a, b]}\n")
    settings = parse(TrainSettings, [f"config={tmp_path / 'run.yaml'}", "steps=9"], HELP)
    assert (settings.optim.steps, settings.optim.lr, settings.data.sources) == (9, 0.5, ("a", "b"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.viws=3", "unknown key data.viws (did you mean data.views?)"),
        ("steps=0", "optim.steps=0: must be at least 1"),
        ("model=vggt-2b", "must be one of vggt-1b"),
        ("lr=abc", "optim.lr=abc"),
        ("steps=", "optim.steps= is empty: give it a value"),
        ("lr=nan", "only finite numbers"),
        ("data.views=[5,4]", "the range is empty"),
        ("model.size.x=3", "model.size has no keys of its own"),
        ("out", "not of the form key=value"),
        ("config=nowhere.yaml", "there is no such file"),
    ],
)
def test_bad_words(word, message):
    with pytest.raises(ConfigError) as caught:
        parse(TrainSettings, [word], HELP)
    assert message in str(caught.value)


@dataclass(frozen=True)
class OwnKeys:
    """A program with keys of its own."""

    out: str = setting("here", "where to write")
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)


def test_a_programs_own_key_wins_over_the_short_word():
    settings = parse(OwnKeys, ["out=there", "data=runs/a"], HELP)
    assert settings.out == "there" and settings.data.sources == ("runs/a",)
    with pytest.raises(ConfigError, match="unknown key steps"):
        parse(OwnKeys, ["steps=3"], HELP)


def test_help_names_every_key(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(OwnKeys, ["--help"], HELP)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for needed in ("usage: python -m program", "out=here", "data.views=[4,16]", "model.precision", "short: data="):
        assert needed in text
