"""comparison.md, and the sentences that summarise a comparison, all computed from its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from megasynth_attr.core.pages.words import count_text, markdown_table, number_text, signed_text, spread_text
from megasynth_train.compare.collect import Results
from megasynth_train.compare.methods import HELD_OUT
from megasynth_train.compare.statistics import METRICS, difference
from megasynth_train.compare.table import Deltas, MethodRow, Table, cells, delta_words, header, meaning, over_scenes
from megasynth_train.compare.tuning import Trial, rates_table

ACCURACY = METRICS[0]
CONTROLS_TEXT = (
    "The base model plus adapters of the cluster, or parts of them, in the mined layers alone and without any tuning. "
    "If a basis holds nothing of what an adapter does, held-out-projected is as good as held-out-random, and "
    "held-out-projected-mean as held-out-mean; where the adapters do nothing, all are as good as base."
)
RATES_TEXT = (
    "Mean distance to the true surface on validation scenes, which are training scenes held out from the trials; every "
    "rate with one seed and the full number of steps. The rate with the lowest one is used for all seeds. Test "
    "scenes were not looked at."
)
Trials = Mapping[str, tuple[Trial, ...]]


def lead(results: Results, table: Table) -> str:
    """Return a few sentences: which method is best, which is next, and whether the seeds tell the two apart."""
    ranked = table.ranked(ACCURACY)
    if not ranked:
        return "No method has a result on a common scene yet."
    best = table.row(ranked[0])
    text = f"By mean distance to the true surface ({ACCURACY.name}), {best.method} is best: {_value(best)}."
    if len(ranked) == 1:
        return f"{text} There is nothing to compare it with."
    second = table.row(ranked[1])
    text = f"{text} Next is {second.method}: {_value(second)}."
    first_values, second_values = (results.values(name, ACCURACY.key) for name in ranked[:2])
    delta = difference(ACCURACY, second.method, second_values, first_values)
    if not (best.total or second.total):
        return f"{text} Neither is trained, so there are no seeds: only the intervals over scenes can tell them apart."
    if delta is None:
        return f"{text} The two share no seed, so nothing can be said about their difference."
    if delta.count < 2:
        return f"{text} They share one seed: the difference cannot be told from chance. {_others(table)}"
    if delta.low is None:
        return (
            f"{text} Their difference is {signed_text(delta.mean)} with each of {delta.count} seeds: without spread "
            f"there is no interval. {_others(table)}"
        )
    does = "is not distinguishable" if delta.verdict == "unclear" else "is distinguishable"
    return (
        f"{text} Their difference, {signed_text(delta.mean)} {delta.interval} (95 % interval, {delta.count} "
        f"seeds), {does} from zero. {_others(table)}"
    )


def caveat(results: Results, table: Table, test_scenes: int, notes: Mapping[str, str], *, tuned: bool = False) -> str:
    """Return what the numbers do not show; ``notes``: what is particular about a method; ``tuned``: learning rates."""
    most = max((row.runs for row in table.rows if row.method not in HELD_OUT), default=0)
    trained = any(row.total for row in table.rows)
    parts = ["One seed only: there is no spread, and no ranking can be claimed."]
    if not trained:
        parts = ["Nothing is trained, so there are no seeds: only scenes differ."]
    elif most > 1:
        parts = [f"The {most} seeds differ in data order, initial values and, where there are any, random bases."]
    tuning = "learning rates were tuned by one rule" if tuned else "no learning rate was tuned"
    parts.append(
        f"Training data, base model and the {test_scenes} test scenes are the same in all runs, so the intervals over "
        "seeds say nothing about other scenes, and none says anything about other models."
    )
    if trained:
        parts.append(f"All methods ran for equally many steps; {tuning}.")
    if len(table.differences) > len(METRICS):
        parts.append(f"Of {len(table.differences)} differences, about one in twenty would look clear by chance alone.")
    return " ".join([*parts, *note_sentences(notes, [row.method for row in table.rows])])


def note_sentences(notes: Mapping[str, str], methods: Iterable[str]) -> list[str]:
    """Return each note once, after the names of those of ``methods`` it is about."""
    about: dict[str, list[str]] = {}
    for name in methods:
        if name in notes:
            about.setdefault(notes[name], []).append(name)
    return [f"{', '.join(names)}: {note}." for note, names in about.items()]


def markdown(
    results: Results, table: Table, test_scenes: int, notes: Mapping[str, str], trials: Trials | None = None
) -> str:
    """Return comparison.md; ``trials``: the learning rates that were tried."""
    parts = ["# Comparison of methods", lead(results, table)]
    parts.append(caveat(results, table, test_scenes, notes, tuned=bool(trials)))
    rows = [header(table), *cells(table)]
    parts.append("## Results\n\nMean ± standard deviation over n seeds.\n\n" + markdown_table(rows, aligned=False))
    if table.differences:
        heading = f"## Difference from {table.reference}, seed by seed\n\nMean and its 95 % interval (Student)."
        parts.append(f"{heading}\n\n{_delta_table(table.differences_by_method)}")
    if table.intervals:
        heading = f"## Difference from {table.reference}, over seeds and scenes\n\n{over_scenes(table.intervals)}"
        parts.append(f"{heading}\n\n{_delta_table(table.intervals_by_method)}")
    if table.contrasts:
        heading = f"## Controls without training\n\n{CONTROLS_TEXT} {over_scenes(table.contrasts)}"
        parts.append(f"{heading}\n\n{_delta_table(table.answers)}")
    if trials:
        parts.append(f"## Learning rates\n\n{RATES_TEXT}\n\n{markdown_table(rates_table(trials), aligned=False)}")
    if results.missing:
        lines = [f"* {one.name}: {one.reason}" for one in results.missing]
        parts.append("## Runs without a result\n\n" + "\n".join(lines))
    if results.uneven:
        lines = [f"* {row.name}: {', '.join(row.excluded)}" for row in results.uneven]
        heading = f"All numbers are means over the {len(results.scenes)} scenes that every run could be measured on"
        parts.append(f"## Scenes left out\n\n{heading}; these runs failed on some:\n\n" + "\n".join(lines))
    how = [f"* {m.heading}: {meaning(m, results.alignment)}" for m in METRICS]
    if table.protocol:
        how.append(f"* Columns of the paper, protocol {table.protocol.name}: {table.protocol.words}")
    parts.append("## How\n\n" + "\n".join(how))
    return "\n\n".join(parts) + "\n"


def _delta_table(found: Sequence[Deltas]) -> str:
    asked = any(row.question for row in found)
    rows = [["difference" if asked else "method", *(m.heading for m in METRICS), *["question"] * asked]]
    rows += [[row.name, *map(delta_words, row.deltas), *[row.question] * asked] for row in found]
    return markdown_table(rows, aligned=False)


def _others(table: Table) -> str:
    """Return which method is best by each of the other metrics."""
    best = {metric.name: ranked[0] for metric in METRICS[1:] if (ranked := table.ranked(metric))}
    return f"Best by {', by '.join(f'{name}: {method}' for name, method in best.items())}." if best else ""


def _value(row: MethodRow) -> str:
    value = row.metrics[ACCURACY.key]
    seeds = f"{count_text(value.count, 'seed')}, " if row.total else ""
    return f"{spread_text(value.mean, value.std)} ({seeds}{number_text(row.total)} trained parameters)"
