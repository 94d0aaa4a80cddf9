"""Numbers and tables in words."""

from __future__ import annotations

import re

import pytest

from megasynth_attr.core.pages.words import markdown_table, short, signed_text, spread_text, table_text

ROWS = [("name", "Acc ↓", "n"), ("a longer one", "0.5 ± 0.1", "12"), ("b", "–", "3")]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (0.5, "0.5"), (-0.25, "−0.25"), (1e-5, "10⁻⁵"), (3.24e-7, "3.2·10⁻⁷"), (12345, "12345")],
)
def test_short_numbers(value: float | None, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.1234, "+0.123"), (-3.0, "−3"), (0.0, "+0"), (-2e-5, "−2e−05")])
def test_signed_numbers(value: float, text: str) -> None:
    assert signed_text(value) == text


@pytest.mark.parametrize(
    ("mean", "std", "text"), [(None, None, "–"), (0.123456, None, "0.1235"), (0.5, 0.0123, "0.5 ± 0.012")]
)
def test_spreads(mean: float | None, std: float | None, text: str) -> None:
    assert spread_text(mean, std) == text


def test_a_plain_table_has_aligned_columns() -> None:
    lines = table_text(ROWS).split("\n")
    assert [re.split(r"\s{2,}", line.strip()) for line in lines] == [list(row) for row in ROWS]
    assert {len(line) for line in lines} == {len("a longer one  0.5 ± 0.1  12")}
    assert [line.index(row[0]) for line, row in zip(lines, ROWS, strict=True)] == [0, 0, 0]


def test_a_markdown_table_has_a_rule_that_aligns_and_padded_columns() -> None:
    header, rule, *lines = markdown_table(ROWS).split("\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *lines)]
    assert cells == [list(row) for row in ROWS]
    assert [bool(re.fullmatch(r"-{2,}", cell)) for cell in rule.strip("|").split("|")] == [True, False, False]
    assert all(re.fullmatch(r"-+:", cell) for cell in rule.strip("|").split("|")[1:])
    assert len({len(line) for line in (header, rule, *lines)}) == 1


def test_an_unaligned_markdown_table_has_the_cells_as_they_are() -> None:
    assert markdown_table([("a", "b"), ("x y", "1")], aligned=False) == "| a | b |\n| --- | ---: |\n| x y | 1 |"
