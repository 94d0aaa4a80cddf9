"""``python -m megasynth_train.compare``: fine-tuning methods on the same data, seeds and budget, in one table.

run.py describes the folders of the runs, report.py the files of the results. The plan says before anything is trained
what all of it will take: runs, trained parameters, arithmetic.
"""

from __future__ import annotations

import sys

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.pages.words import number_text, table_text
from megasynth_train.compare.methods import Method
from megasynth_train.compare.prepare import PARTS, Prepared, prepare
from megasynth_train.compare.run import run
from megasynth_train.compare.settings import CompareSettings
from megasynth_train.compare.text import note_sentences
from megasynth_train.cost.step import expected_s, mean_step, tuning_of
from megasynth_train.training.processes import run_program

HELP = Help(
    usage="python -m megasynth_train.compare data=FOLDER test=FOLDER out=FOLDER [key=value ...]",
    explanation=(
        "Trains and evaluates every method with every seed and writes one table: comparison.md, comparison.json,\n"
        "index.html. Running the same command again continues; methods and seeds may be added later. On CPUs, several\n"
        "runs are made at once (parallel=). A method that fails does not stop the others; failures are listed at the\n"
        "end, with exit code 3. plan=true prints runs, trained parameters and cost, and stops."
    ),
    examples=(
        "python -m megasynth_train.compare config=presets/train/compare_tiny.yaml data=runs/demo/texture_00 "
        "test=runs/demo/texture_01 out=runs/comparison",
        "python -m megasynth_train.compare data=runs/everything/everything_00 test=runs/everything/everything_01 "
        "basis=runs/subspaces checkpoint=facebook/VGGT-1B out=runs/comparison methods=paper plan=true",
        "python -m megasynth_train.compare … methods=[base,heads,subspace,random,slow] define.slow.like=full "
        "define.slow.lr=1e-6 seeds=[0,1,2,3,4]",
    ),
)

_NOTE = (
    "PFLOP: operations of linear layers, convolutions and attention over all steps. Hours: computed from rates assumed "
    "for one H200, not measured. DoRA and AdaLoRA are counted as plain LoRA but take longer."
)


def main(words: list[str]) -> None:
    """Compare as the command line says, or print the plan."""
    settings = parse(CompareSettings, words, HELP)
    if settings.plan:
        print(plan_text(prepare(settings)))
        return
    run(settings)


def plan_text(prepared: Prepared) -> str:
    """Return the plan: the totals, then one line per method with trained parameters and the cost of one run."""
    settings = prepared.settings
    rows: list[tuple[str, ...]] = [("method", *PARTS, "all", "lr", "runs", "PFLOP/run", "H200 h/run")]
    flops = hours = 0.0
    count = 0
    for method in prepared.methods:
        parts = prepared.sizes[method.name].parameters
        runs = len(settings.seeds) + len(settings.tune.lr) if method.adapter is not None else 0
        one_flops, one_s = _run_cost(prepared, method) if runs else (0.0, 0.0)
        flops, hours, count = flops + runs * one_flops, hours + runs * one_s / 3600, count + runs
        cost = (f"{one_flops / 1e15:.3g}", f"{one_s / 3600:.2g}") if runs else ("", "")
        rate = ("tuned" if settings.tune.lr else f"{method.optim.lr:g}") if runs else ""
        shown = [number_text(parts[part]) for part in PARTS]
        rows.append((method.name, *shown, number_text(sum(parts.values())), rate, str(runs), *cost))
    steps = settings.optim.steps
    lines = [
        f"{settings.model.size}, {len(prepared.methods)} methods, seeds {', '.join(map(str, settings.seeds))}: {count} "
        f"trainings of {number_text(steps)} steps, about {flops / 1e15:.3g} PFLOP or {hours:.2g} H200 hours in all",
        table_text(rows),
        _NOTE,
    ]
    if prepared.notes:
        lines.append("\n".join(note_sentences(prepared.notes, prepared.sizes)))
    return "\n\n".join(lines)


def _run_cost(prepared: Prepared, method: Method) -> tuple[float, float]:
    """Return the floating-point operations of one training, and its seconds at the assumed rates."""
    assert method.adapter is not None
    settings, steps = prepared.settings.training(), method.optim.steps
    tuning = tuning_of(method.adapter, prepared.sizes[method.name].columns)
    return (
        steps * mean_step(settings, tuning, lambda cost: cost.total),
        steps * mean_step(settings, tuning, expected_s),
    )


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
