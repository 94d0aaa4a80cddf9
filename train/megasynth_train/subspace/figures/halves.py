"""Do two halves of an attribute's adapters give the same subspace, and halves of other attributes another one?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from megasynth_attr.core.pages.figures import CHANCE, COLOURS, Sheet, legend_room, sheet, top_legend
from megasynth_attr.core.pages.words import short
from megasynth_train.subspace.figures.layout import Drawing, saved
from megasynth_train.subspace.figures.numbers import SplitNumbers


def draw_halves(splits: Sequence[SplitNumbers], folder: Path) -> tuple[Drawing, ...]:
    """Draw mean cos² between bases from halves, one line per pair, both sides; nothing without splits."""
    splits = [numbers for numbers in splits if numbers.out.count]
    if not splits:
        return ()
    longest = max(len(numbers.name) for numbers in splits)
    page = sheet(
        2,
        1,
        0.2 * len(splits) + 0.1,
        left=min(2.2, 0.25 + 0.068 * longest),
        top=0.36 + legend_room(3),
        bottom=0.48,
        gap_y=0.48,
    )
    highest = max(value or 0.0 for n in splits for value in (n.out.high, n.inner.high))
    for axes, side in zip(page.axes[:, 0], ("out", "inner"), strict=True):
        for line, numbers in enumerate(splits):
            found, by_chance = getattr(numbers, side), getattr(numbers, f"{side}_chance")
            colour = COLOURS[0] if numbers.same else COLOURS[1]
            axes.plot((found.low, found.high), (line, line), color=colour, linewidth=2.4, alpha=0.45)
            axes.plot(found.median, line, "o" if numbers.same else "s", color=colour, markersize=4.8)
            axes.plot((by_chance.low, by_chance.high), (line + 0.28,) * 2, color="#9aa2ae", linewidth=1.6)
            axes.plot(by_chance.median, line + 0.28, "|", color=CHANCE, markersize=5, markeredgewidth=1.4)
        axes.set_yticks(range(len(splits)), [numbers.name for numbers in splits], fontsize=8)
        axes.set_ylim(len(splits) - 0.4, -0.6)
        axes.set_xlim(0, min(1.02, max(0.05, 1.05 * highest)))
        axes.grid(False, axis="y")
        axes.set_title("outputs" if side == "out" else "inputs", loc="left", pad=3)
    page.axes[1, 0].set_xlabel("mean cos² of the principal angles", labelpad=2)
    _legend(page)
    found = "; ".join(
        f"{n.name} {short(n.out.median)} and {short(n.inner.median)} "
        f"(chance {short(n.out_chance.median)} and {short(n.inner_chance.median)})"
        for n in splits
    )
    return (saved(page, folder, "halves", found=found),)


def _legend(page: Sheet) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLOURS[0], marker="o", markersize=4.8, linewidth=0),
        Line2D([], [], color=COLOURS[1], marker="s", markersize=4.8, linewidth=0),
        Line2D([], [], color=CHANCE, marker="|", markersize=6, markeredgewidth=1.4, linewidth=0),
    ]
    top_legend(page.figure, handles, ["one attribute", "two attributes", "chance"])
