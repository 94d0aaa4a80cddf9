"""Words and files become one checked dataclass: types, lists, tables, layers, and messages that name what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megasynth_attr.core.command.keys import nearest, short_words
from megasynth_attr.core.command.layers import merge, read_yaml
from megasynth_attr.core.command.program import Help, help_text, parse
from megasynth_attr.core.command.settings import fill
from megasynth_attr.core.command.words import parse_words
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import REQUIRED, setting

HELP = Help("python -m program out=FOLDER", "Does a thing.", ("python -m program out=x",))


@dataclass(frozen=True)
class Inner:
    """What is read."""

    paths: tuple[str, ...] = setting((), "folders", short="data", literal=True)
    names: tuple[str, ...] = setting(("a",), "names")
    seeds: tuple[int, ...] = setting((0,), "seeds", minimum=0)
    rates: tuple[float, ...] = setting((), "rates")
    weights: dict[str, float] = setting({"cube": 1.0, "ball": 2.0}, "weights")
    free: dict[str, Any] = setting({}, "anything")
    share: float = setting(0.5, "share", minimum=0, maximum=1)
    kind: str = setting("null", "kind", options=["null", "some"])


@dataclass(frozen=True)
class Keys:
    """A program's keys."""

    out: str = setting(REQUIRED, "where to write")
    text: str = setting("", "any text")
    count: int = setting(3, "how many", short="n")
    flag: bool = setting(False, "whether")
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Part:
    """A section whose number is declared with a whole default."""

    width: float = setting(1, "width")


@dataclass(frozen=True)
class Whole:
    """A program whose keys all lie in a section."""

    part: Part = field(default_factory=Part)


def read(*words: str) -> Keys:
    return parse(Keys, ["out=x", *words], HELP)


@given(st.text(st.characters(blacklist_characters="\0")))
def test_any_text_arrives_as_typed(text: str) -> None:
    keys = read(f"text={text}", f"inner.paths={text}")
    assert keys.text == text
    assert keys.inner.paths == ((text,) if text else ())


@given(st.integers())
def test_whole_numbers_are_decimal_with_leading_zeros_too(number: int) -> None:
    assert read(f"count={number}").count == number
    assert read(f"count=000{abs(number)}").count == abs(number)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1))
def test_numbers_are_pythons(number: float) -> None:
    assert read(f"inner.share={number!r}").inner.share == number


def test_lists_in_brackets_or_one_item_alone() -> None:
    inner = read("inner.names=[b, 007,'x, y']", "inner.seeds=010", "inner.rates=[1e-3,2,03]").inner
    assert inner.names == ("b", "007", "x, y")
    assert inner.seeds == (10,)
    assert inner.rates == (0.001, 2.0, 3.0)
    assert read("inner.names=[]").inner.names == read("inner.names=").inner.names == ()
    assert read("inner.names=a, b").inner.names == ("a, b",)


def test_every_word_of_a_list_of_paths_is_one_item_and_an_empty_one_begins_anew() -> None:
    assert read("inner.paths=[a,b]", "data=c d", "--inner.paths= e").inner.paths == ("[a,b]", "c d", " e")
    assert read("data=a", "data=", "data=b").inner.paths == ("b",)


def test_otherwise_the_last_word_for_a_key_counts() -> None:
    assert read("count=1", "n=2").count == 2
    assert read("inner.seeds=[1,2]", "inner.seeds=3").inner.seeds == (3,)


def test_tables_are_laid_over_their_defaults() -> None:
    assert read("inner.weights={cone: 03}").inner.weights == {"cube": 1, "ball": 2, "cone": 3}
    assert read("inner.weights.cube=02").inner.weights == {"cube": 2, "ball": 2}
    free = read("inner.free.slow.lr=1e-6", "inner.free.slow.like=007").inner.free
    assert free == {"slow": {"lr": "1e-6", "like": "007"}}  # who knows the keys reads them
    assert fill(Inner, {"share": "1e-1", "seeds": ["010"]}).seeds == (10,)


def test_a_default_is_of_its_keys_type() -> None:
    """Fingerprints are made of 1.0 where a number was declared with the default 1."""

    assert repr(fill(Whole, {}).part.width) == repr(fill(Part, {}).width) == "1.0"


def test_truth_is_true_or_false() -> None:
    assert read("flag=True").flag and not read("flag=false").flag


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("count=1e3", "count=1e3: expected a whole number in decimal digits"),
        ("count=0x10", "count=0x10: expected a whole number"),
        ("count=1_000", "count=1_000: expected a whole number"),
        ("count=2.0", "count=2.0: expected a whole number"),
        ("count=²", "count=²: expected a whole number"),
        ("count=", "count= is empty: give it a value, or leave it out for the default"),
        ("count=" + "9" * 5000, "too many digits"),
        ("count=a\nb", r"count='a\nb': expected"),
        ("count.x=3", "count has no keys of its own, but .x is given"),
        ("inner.share=nan", "inner.share=nan: only finite numbers are allowed"),
        ("inner.share=1e999", "only finite numbers"),
        ("inner.share=0_1", "inner.share=0_1: expected a finite number"),
        ("inner.share= 1", "inner.share= 1: expected a finite number"),
        ("inner.share=-Infinity", "only finite numbers"),
        ("inner.share=half", "inner.share=half: expected a finite number"),
        ("inner.share=1.5", "inner.share=1.5: must be at most 1"),
        ("inner.seeds=[1,-1]", "inner.seeds=[1,-1]: must be at least 0"),
        ("inner.seeds=[1,x]", "inner.seeds=[1,x]: expected a whole number"),
        ("inner.seeds=1,2", "inner.seeds=1,2: expected a whole number"),
        ("inner.seeds=[1", "inner.seeds=[1: the brackets cannot be read"),
        ("inner.seeds={a: 1}", "inner.seeds={a: 1}: expected list of whole numbers"),
        ("inner.names=[a: b]", "inner.names=[a: b]: expected list of texts"),
        (
            "inner.names=[&a [x,x],&b [*a,*a]]",
            "the brackets cannot be read (aliases, *name, are not read; put the text",
        ),
        ("inner.names=" + "[" * 600, "the brackets cannot be read"),
        ("inner.weights.cube=big", "inner.weights.cube=big: expected a finite number"),
        ("inner.weights=3", "inner.weights=3: expected a table"),
        ("inner.kind=other", "inner.kind=other: must be one of null, some"),
        ("flag=yes", "flag=yes: write true or false"),
        ("inner=3", "inner=3: this is a section; set one of its keys"),
        ("inner.shaer=1", "unknown key inner.shaer (did you mean inner.share?); --help lists all keys"),
        ("shaer=1", "unknown key shaer (did you mean inner.share?)"),
        ("out=", "out= is empty: give it a value"),
        ("text", "'text' is not of the form key=value"),
        ("=x", "'=x' is not of the form key=value"),
        ("a..b=x", "'a..b=x' is not of the form key=value"),
        ("config=nowhere.yaml", "nowhere.yaml: there is no such file"),
        ("config=", "config= is empty"),
        ("config=a\0b", "a\\x00b: there is no such file"),
    ],
)
def test_mistakes_name_themselves_in_one_line(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(word)
    assert message in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_required_key_is_missed_and_without_any_word_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="out= is missing"):
        parse(Keys, ["count=1"], HELP)
    with pytest.raises(SystemExit) as leaving:
        parse(Keys, [], HELP)
    assert leaving.value.code == 0 and "usage: python -m program out=FOLDER" in capsys.readouterr().out


def test_a_value_and_keys_of_its_own_exclude_each_other() -> None:
    for words in (["inner=3", "inner.share=1"], ["inner.share=1", "inner=3"]):
        with pytest.raises(ConfigError, match="a value and keys of its own"):
            parse_words(words)


def test_files_lie_under_words_and_keep_yamls_rules(tmp_path: Path) -> None:
    file = tmp_path / "run #1.yaml"
    file.write_text("count: 010\ntext: ${HOME} ${oc.env:HOME}\ninner: {paths: [a, '[x]'], share: 1e-1, kind: null}\n")
    keys = read(f"config={file}", "inner.seeds=4")
    assert keys.count == 8  # YAML 1.1
    assert keys.text == "${HOME} ${oc.env:HOME}"
    assert keys.inner == Inner(paths=("a", "[x]"), share=0.1, kind="null", seeds=(4,))
    assert read(f"config={file}", "data=b", "n=5").inner.paths == ("b",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text: 007", "text=7: expected text; in a YAML file it needs quotes"),
        ("text: yes", "text=true: expected text"),
        ("text: 2024-01-01", "text=2024-01-01: expected text"),
        ("count: 2.5", "count=2.5: expected whole number"),
        ("count:", "count= is empty"),
        ("count: true", "count=true: expected whole number"),
        ("inner: 3", "this is a section"),
        ("inner.share: 1", "unknown key inner.share (in a file, write the key under its section, not with dots)"),
        ("inner: {share: .nan}", "only finite numbers"),
        ("inner: {rates: [a]}", "inner.rates=[a]: expected a finite number"),
        ("inner: {names: [1]}", "inner.names=[1]: expected list of texts"),
        ("- a", "expected `key: value` lines, found list"),
        ("a: [1", "cannot be read"),
    ],
)
def test_mistakes_in_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(f"config={tmp_path / 'a.yaml'}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "a.yaml")


def test_layers_merge_by_key() -> None:
    assert merge({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"c": [2]}, "d": {"e": 3}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {"e": 3},
    }


def test_short_words_are_declared_at_their_keys() -> None:
    assert short_words(Keys) == {"n": "count", "data": "inner.paths"}
    assert nearest("cuont", ["count"]) == " (did you mean count?)" and nearest("zzz", ["count"]) == ""


def test_help_has_every_key_with_type_default_limits_and_meaning() -> None:
    text = help_text(Keys, HELP)
    for line in (
        "usage: python -m program out=FOLDER",
        "  out=   (required, text)",
        "  count=3   (whole number)",
        "      how many; short: n=",
        "inner: What is read.",
        "  inner.paths=[]   (list of texts, one word each)",
        "  inner.share=0.5   (number, 0 to 1)",
        "  inner.kind=null   (one of null, some)",
        "  inner.weights={cube: 1, ball: 2}   (table of numbers)",
        "  python -m program out=x",
        "   2  wrong configuration or input; running again cannot help",
    ):
        assert line in text.splitlines(), line
    assert help_text(Keys, HELP, ["--help", "inner"]).startswith("inner: What is read.\n  inner.paths=")
    with pytest.raises(ConfigError, match=r"there is no such section \(did you mean inner\?\); known: keys, inner"):
        help_text(Keys, HELP, ["--help", "iner"])
