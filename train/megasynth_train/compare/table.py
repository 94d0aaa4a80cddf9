"""The numbers of a comparison as a table: methods by metrics, and as words of the right length."""

from __future__ import annotations

from dataclasses import dataclass

from megasynth_attr.core.pages.words import number_text, signed_text, spread_text
from megasynth_train.compare.collect import Results
from megasynth_train.compare.statistics import METRICS, Difference, Metric, Spread, difference, spread

PARTS = ("aggregator", "heads", "encoder")


@dataclass(frozen=True)
class MethodRow:
    """A method over its seeds. ``parameters``: trained numbers of aggregator, heads and encoder."""

    method: str
    parameters: dict[str, int]
    metrics: dict[str, Spread]
    seconds: Spread
    runs: int

    @property
    def total(self) -> int:
        """Return all trained numbers."""
        return sum(self.parameters.values())


@dataclass(frozen=True)
class Table:
    """Methods in their order, and their differences to the reference ("" if that has no result)."""

    rows: tuple[MethodRow, ...]
    reference: str
    differences: tuple[Difference, ...]

    def difference(self, method: str, metric: Metric) -> Difference | None:
        """Return one of the differences, or None if the two share no seed."""
        return next((d for d in self.differences if (d.method, d.metric) == (method, metric.key)), None)


def make_table(results: Results, reference: str) -> Table:
    """Return means and spreads over seeds of every method, and the paired differences to ``reference``."""
    rows = []
    for method in results.methods:
        runs = results.of(method)
        metrics = {m.key: spread(list(results.values(method, m.key).values())) for m in METRICS}
        seconds = spread([row.seconds for row in runs if row.seconds is not None])
        rows.append(MethodRow(method, runs[0].parameters, metrics, seconds, len(runs)))
    if reference not in results.methods:
        return Table(tuple(rows), "", ())
    found = [
        difference(m, method, results.values(method, m.key), results.values(reference, m.key))
        for method in results.methods
        if method != reference
        for m in METRICS
    ]
    return Table(tuple(rows), reference, tuple(one for one in found if one is not None))


def meaning(metric: Metric, alignment: str) -> str:
    """Return what a metric is, with its unit and alignment."""
    if metric.path[0] == "depth":
        return f"{metric.meaning} (alignment: {alignment})"
    return metric.meaning + ("" if metric.key == "normals" else ", in scene units")


def header(table: Table) -> list[str]:
    """Return the names of the columns of ``cells``."""
    return ["method", *_parts(table), "all", *(f"{m.name} {m.arrow}" for m in METRICS), "seconds", "n"]


def cells(table: Table) -> list[list[str]]:
    """Return the table of results as words, a line per method: trained numbers, metrics, seconds, count of seeds."""
    lines = []
    for row in table.rows:
        parts = [number_text(row.parameters[part]) for part in _parts(table)]
        seconds = "–" if row.seconds.mean is None else f"{row.seconds.mean:.3g}"
        metrics = [spread_text(row.metrics[m.key].mean, row.metrics[m.key].std) for m in METRICS]
        lines.append([row.method, *parts, number_text(row.total), *metrics, seconds, str(row.runs)])
    return lines


def interval_words(value: Difference) -> str:
    """Return "[low, high]", or "one seed"."""
    if value.low is None or value.high is None:
        return "one seed"
    return f"[{signed_text(value.low)}, {signed_text(value.high)}]"


def run_words(method: str, seed: int | None) -> str:
    """Return a run in words."""
    return method if seed is None else f"{method}, seed {seed}"


def table_row(table: Table, method: str) -> MethodRow:
    """Return a method's row."""
    return next(row for row in table.rows if row.method == method)


def _parts(table: Table) -> list[str]:
    """Return the parts of the model that some method trains."""
    return [part for part in PARTS if any(row.parameters[part] for row in table.rows)]
