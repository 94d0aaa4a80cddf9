"""The results of a comparison as a table of methods by metrics, in numbers and as text."""

from __future__ import annotations

from dataclasses import dataclass

from megasynth_attr.core.pages.words import number_text, spread_text
from megasynth_train.compare.collect import Results
from megasynth_train.compare.prepare import PARTS
from megasynth_train.compare.statistics import METRICS, Difference, Metric, Spread, difference, ranking, spread
from megasynth_train.evaluate.protocols import COLUMNS, Protocol


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
class Table:
    """Methods in their order, and their differences from the reference ("" if that has no result).

    ``protocol``: the paper's evaluation that the numbers are of, if they are.
    """

    rows: tuple[MethodRow, ...]
    reference: str
    differences: tuple[Difference, ...]
    protocol: Protocol | None = None

    def row(self, method: str) -> MethodRow:
        """Return a method's row."""
        return next(row for row in self.rows if row.method == method)

    def ranked(self, metric: Metric) -> list[str]:
        """Return the methods from best to worst mean; those without one are left out."""
        means = {row.method: mean for row in self.rows if (mean := row.metrics[metric.key].mean) is not None}
        return ranking(metric, means)

    @property
    def differences_by_method(self) -> list[tuple[str, list[Difference | None]]]:
        """Return every method but the reference with its differences, one per metric; None: they share no seed."""
        found = {(one.method, one.metric): one for one in self.differences}
        names = [row.method for row in self.rows if row.method != self.reference] if found else []
        return [(name, [found.get((name, metric.key)) for metric in METRICS]) for name in names]


def make_table(results: Results, reference: str, protocol: Protocol | None = None) -> Table:
    """Return means and spreads over seeds of every method, and the paired differences from ``reference``."""
    rows = []
    for method in results.methods:
        runs = results.of(method)
        metrics = {m.key: spread(list(results.values(method, m.key).values())) for m in METRICS}
        seconds = spread([row.seconds for row in runs if row.seconds is not None])
        rows.append(MethodRow(method, runs[0].parameters, metrics, seconds, len(runs)))
    if reference not in results.methods:
        return Table(tuple(rows), "", (), protocol)
    found = [
        difference(m, method, results.values(method, m.key), results.values(reference, m.key))
        for method in results.methods
        if method != reference
        for m in METRICS
    ]
    return Table(tuple(rows), reference, tuple(one for one in found if one is not None), protocol)


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
