"""The results of a comparison as a table of methods by metrics, in numbers and as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from megasynth_attr.core.pages.words import count_text, number_text, signed_text, spread_text
from megasynth_train.compare.collect import Results
from megasynth_train.compare.methods import BASE, HELD_OUT, MEAN, TIES
from megasynth_train.compare.prepare import PARTS
from megasynth_train.compare.statistics import (
    DRAWS,
    FEW_SCENES,
    FEW_SEEDS,
    METRICS,
    NO_SPREAD,
    Difference,
    Interval,
    Metric,
    Paired,
    Spread,
    difference,
    intervals,
    ranking,
    spread,
)
from megasynth_train.evaluate.protocols import COLUMNS, Protocol

# of controls: one, another, and what their difference tells
QUESTIONS = (
    ("held-out", BASE, "does an adapter of the cluster change anything here? If not, the other lines say nothing"),
    ("held-out-projected", "held-out", "is anything lost by keeping only what the others' basis holds of it?"),
    ("held-out-projected", "held-out-random", "does the mined basis keep more of it than a random one of equal size?"),
    ("held-out-mean", "held-out", "does the mean of the others do as much as the adapter itself?"),
    ("held-out-projected-mean", "held-out-mean", "does the mined basis add anything to the mean of the others?"),
    ("held-out-random-mean", "held-out-mean", "does a random basis of equal size add anything to it?"),
    ("held-out-whole", "held-out", "what do its changes outside the mined layers add?"),
    (MEAN, BASE, "does the mean of all adapters help?"),
    (TIES, MEAN, "does merging by signs beat the mean?"),
)


@dataclass(frozen=True)
class MethodRow:
    """A method over its seeds. ``parameters``: trained parameters of aggregator, heads and encoder."""

    method: str
    parameters: dict[str, int]
    metrics: dict[str, Spread]
    seconds: Spread
    runs: int

    @property
    def total(self) -> int:
        """Return the count of all trained parameters."""
        return sum(self.parameters.values())


@dataclass(frozen=True)
class Deltas:
    """A row of differences: what it is about, one per metric or None, and the question they answer, if there is one."""

    name: str
    deltas: tuple[Difference | Interval | None, ...]
    question: str = ""


@dataclass(frozen=True)
class Table:
    """Methods in their order, and their differences from the reference ("" if that has no result).

    ``protocol``: the paper's evaluation that the numbers are of, if they are.
    ``intervals``: the same differences over seeds and scenes; ``contrasts``: those of controls, by QUESTIONS.
    """

    rows: tuple[MethodRow, ...]
    reference: str
    differences: tuple[Difference, ...]
    intervals: tuple[Interval, ...] = ()
    contrasts: tuple[Interval, ...] = ()
    protocol: Protocol | None = None

    def row(self, method: str) -> MethodRow:
        """Return a method's row."""
        return next(row for row in self.rows if row.method == method)

    def ranked(self, metric: Metric) -> list[str]:
        """Return the methods from best to worst mean; without those that have none or leave out an adapter."""
        rows = [row for row in self.rows if row.method not in HELD_OUT]
        means = {row.method: mean for row in rows if (mean := row.metrics[metric.key].mean) is not None}
        return ranking(metric, means)

    @property
    def differences_by_method(self) -> list[Deltas]:
        """Return every method but the reference with its differences, one per metric; None: they share no seed."""
        return _by_metric((one.method, one) for one in self.differences)

    @property
    def intervals_by_method(self) -> list[Deltas]:
        """Return the same over seeds and scenes."""
        return _by_metric((one.method, one) for one in self.intervals)

    @property
    def answers(self) -> list[Deltas]:
        """Return "method − reference" with its intervals, and the question it answers."""
        asked = {f"{one} − {other}": question for one, other, question in QUESTIONS}
        found = _by_metric((named_pair(one), one) for one in self.contrasts)
        return [replace(row, question=asked[row.name]) for row in found]


def make_table(results: Results, reference: str, protocol: Protocol | None = None) -> Table:
    """Return means and spreads over seeds of every method, and the paired differences from ``reference``."""
    rows = []
    for method in results.methods:
        runs = results.of(method)
        metrics = {m.key: spread(list(results.values(method, m.key).values())) for m in METRICS}
        seconds = spread([row.seconds for row in runs if row.seconds is not None])
        rows.append(MethodRow(method, runs[0].parameters, metrics, seconds, len(runs)))
    contrasts = _paired(results, [(one, other) for one, other, _ in QUESTIONS])
    if reference not in results.methods:
        return Table(tuple(rows), "", (), contrasts=contrasts, protocol=protocol)
    # those that leave out an adapter have questions of their own, and no seeds
    others = [method for method in results.methods if method != reference and method not in HELD_OUT]
    found = [
        difference(m, method, results.values(method, m.key), results.values(reference, m.key))
        for method in others
        for m in METRICS
    ]
    known = tuple(one for one in found if one is not None)
    paired = _paired(results, [(one, reference) for one in others])
    return Table(tuple(rows), reference, known, paired, contrasts, protocol)


def named_pair(one: Interval) -> str:
    """Return what an interval is about, "method − reference"."""
    return f"{one.method} − {one.reference}"


def _paired(results: Results, pairs: Sequence[tuple[str, str]]) -> tuple[Interval, ...]:
    """Return the intervals of the pairs of methods that have results, in every metric."""
    return intervals(
        [
            Paired(m, one, other, results.scores(one, m.key), results.scores(other, m.key))
            for one, other in pairs
            if {one, other} <= set(results.methods)
            for m in METRICS
        ]
    )


def _by_metric(found: Iterable[tuple[str, Difference | Interval]]) -> list[Deltas]:
    rows: dict[str, dict[str, Difference | Interval]] = {}
    for name, one in found:
        rows.setdefault(name, {})[one.metric] = one
    return [Deltas(name, tuple(of_name.get(m.key) for m in METRICS)) for name, of_name in rows.items()]


def over_scenes(found: Sequence[Interval]) -> str:
    """Return what the intervals over seeds and scenes are, and what chance alone would look like."""
    few = min((one.replicates for one in found if one.replicates > 1), default=0)
    scenes = max((one.scenes for one in found), default=0)
    text = (
        f"Seeds (of held-out methods: adapters left out) and scenes are both drawn anew {DRAWS} times, the same draws "
        f"for all methods. The intervals are corrected for the {len(found)} of this table (Bonferroni): if nothing "
        "differs, all of them contain 0 in 19 of 20 such tables."
    )
    if scenes < FEW_SCENES:
        text += (
            f" There {'is' if scenes == 1 else 'are'} only {count_text(scenes, 'test scene')}: fewer than "
            f"{FEW_SCENES} do not show how scenes differ, so do not trust these intervals."
        )
    if 0 < few < FEW_SEEDS:
        text += f" Some rest on {few} seeds or adapters only, and are very wide."
    if any(one.interval == NO_SPREAD for one in found):
        text += " Where all differences are equal, nothing shows how far others would be off, so there is no interval."
    return text


def delta_words(one: Difference | Interval | None) -> str:
    """Return a difference with its interval and verdict."""
    return "–" if one is None else " ".join(filter(None, (signed_text(one.mean), one.interval, one.verdict)))


def meaning(metric: Metric, alignment: str) -> str:
    """Return what a metric is, with its unit and alignment."""
    if metric.path[0] == "depth":
        return f"{metric.meaning} (alignment: {alignment})"
    return metric.meaning + ("" if metric.key == "normals" else ", in scene units")


def header(table: Table) -> list[str]:
    """Return the names of the columns of ``cells``."""
    papers = [f"{name}, paper" for name in COLUMNS] if table.protocol else []
    return ["method", *_parts(table), "all", *(m.heading for m in METRICS), *papers, "seconds", "n"]


def cells(table: Table) -> list[list[str]]:
    """Return the results as text, one row per method: trained parameters, metrics, the paper's columns if they follow
    its protocol, seconds, count of seeds.
    """
    lines = []
    for row in table.rows:
        parts = [number_text(row.parameters[part]) for part in _parts(table)]
        seconds = "–" if row.seconds.mean is None else f"{row.seconds.mean:.3g}"
        metrics = [spread_text(row.metrics[m.key].mean, row.metrics[m.key].std) for m in METRICS]
        if table.protocol:
            metrics += _of_paper(row, table.protocol)
        lines.append([row.method, *parts, number_text(row.total), *metrics, seconds, str(row.runs)])
    return lines


def _of_paper(row: MethodRow, protocol: Protocol) -> list[str]:
    """Return the paper's columns, in its units."""
    spreads = {metric.path[-1]: row.metrics[metric.key] for metric in METRICS if metric.path[0] == "points"}
    found = []
    for heading, (key, *_) in COLUMNS.items():
        numbers = (spreads[key].mean, spreads[key].std)
        found.append(spread_text(*(None if one is None else one * protocol.factor(heading) for one in numbers)))
    return found


def _parts(table: Table) -> list[str]:
    """Return the parts of the model that some method trains."""
    return [part for part in PARTS if any(row.parameters[part] for row in table.rows)]
