"""comparison.md, and the sentences that sum a comparison up: computed from the numbers, and no more than they say."""

from __future__ import annotations

from collections.abc import Sequence

from megasynth_train.compare.collect import Results
from megasynth_train.compare.statistics import METRICS, difference, ranking
from megasynth_train.compare.table import (
    HEADER,
    MethodRow,
    Table,
    cells,
    difference_words,
    meaning,
    number,
    run_words,
    spread_words,
    table_row,
)

ACCURACY = METRICS[0]


def lead(results: Results, table: Table) -> str:
    """Return two or three sentences computed from the numbers: who is best, and whether that exceeds the spread."""
    ranked = _ranked(table)
    if not ranked:
        return "No method has a result on a common scene yet."
    best = table_row(table, ranked[0])
    text = f"By mean distance to the true surface ({ACCURACY.name}), {best.method} is best: {_value(best)}."
    if len(ranked) == 1:
        return f"{text} There is nothing to compare it with."
    second = table_row(table, ranked[1])
    text = f"{text} Next is {second.method}: {_value(second)}."
    first_values, second_values = (results.values(name, ACCURACY.key) for name in ranked[:2])
    delta = difference(ACCURACY, second.method, second_values, first_values)
    if delta is None:
        return f"{text} The two share no seed, so that nothing can be said about their difference."
    if delta.count < 2:
        return f"{text} They have one seed in common, so that their difference cannot be told from chance."
    interval = difference_words(delta).rpartition(" ")[0]
    does = "does not exceed" if delta.verdict == "unclear" else "exceeds"
    return f"{text} Their difference, {interval} (95 % interval, {delta.count} seeds), {does} the spread between seeds."


def caveat(results: Results, table: Table, test_scenes: int) -> str:
    """Return what the numbers do not show."""
    most = max((row.runs for row in table.rows), default=0)
    parts = []
    if most < 2:
        parts.append("One seed only: there is no spread, and no ranking can be claimed.")
    else:
        parts.append(f"{most} seeds differ in data order, initial values and random bases.")
    parts.append(
        f"The training data, the base model and the {test_scenes} test scenes are the same in all runs, so that "
        "intervals say nothing about other scenes or models. All methods ran for the same steps; learning rates were "
        "not tuned for each unless the plan says so."
    )
    if len(table.differences) > len(METRICS):
        parts.append(
            f"Of {len(table.differences)} differences about one in twenty lies outside its 95 % interval by chance."
        )
    return " ".join(parts)


def markdown(results: Results, table: Table, test_scenes: int) -> str:
    """Return comparison.md."""
    parts = ["# Comparison of methods", lead(results, table), caveat(results, table, test_scenes)]
    rows = [HEADER, *(cells(row) for row in table.rows)]
    parts.append("## Results\n\nMean ± standard deviation over n seeds.\n\n" + _markdown_table(rows))
    if table.differences:
        heads = ["method", *(f"{m.name} {m.arrow}" for m in METRICS)]
        parts.append(
            f"## Difference to {table.reference}, seed by seed\n\nMean and its 95 % interval (Student).\n\n"
            + _markdown_table([heads, *difference_rows(table)])
        )
    if results.missing:
        lines = [f"* {run_words(one.method, one.seed)}: {one.reason}" for one in results.missing]
        parts.append("## Runs without a result\n\n" + "\n".join(lines))
    if results.uneven:
        lines = [f"* {run_words(row.method, row.seed)}: {', '.join(row.excluded)}" for row in results.uneven]
        heading = f"All numbers are means over the {len(results.scenes)} scenes that every run could be measured on"
        parts.append(f"## Scenes left out\n\n{heading}; these runs failed on some:\n\n" + "\n".join(lines))
    parts.append("## How\n\n" + "\n".join(f"* {m.name} {m.arrow}: {meaning(m, results.alignment)}" for m in METRICS))
    return "\n\n".join(parts) + "\n"


def difference_rows(table: Table) -> list[list[str]]:
    """Return one line per method but the reference: its name, and the difference in every metric as words."""
    return [
        [row.method, *(difference_words(table.difference(row.method, m)) for m in METRICS)]
        for row in table.rows
        if row.method != table.reference
    ]


def _ranked(table: Table) -> list[str]:
    """Return the methods from best to worst mean accuracy."""
    means = {row.method: mean for row in table.rows if (mean := row.metrics[ACCURACY.key].mean) is not None}
    return ranking(ACCURACY, means)


def _value(row: MethodRow) -> str:
    value = row.metrics[ACCURACY.key]
    seeds = f"{value.count} seed{'' if value.count == 1 else 's'}, " if row.total else ""
    return f"{spread_words(value)} ({seeds}{number(row.total)} trained numbers)"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])
