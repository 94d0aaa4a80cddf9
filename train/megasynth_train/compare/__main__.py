"""``python -m megasynth_train.compare``: fine-tuning methods on the same data, seeds and budget, in one table.

run.py describes the folders of the runs, report.py the files of the results.
"""

from __future__ import annotations

import sys

from accelerate.state import PartialState

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_train.compare.cost import plan_text
from megasynth_train.compare.prepare import prepare
from megasynth_train.compare.run import run
from megasynth_train.compare.settings import CompareSettings

HELP = Help(
    usage="python -m megasynth_train.compare data=FOLDER test=FOLDER out=FOLDER [key=value ...]",
    explanation=(
        "Trains and evaluates every method with every seed and writes one table: comparison.md, comparison.json,\n"
        "index.html. Running the same command again continues; methods and seeds may be added later. A method that\n"
        "fails does not stop the others; failures are listed at the end, with exit code 3. plan=true prints runs,\n"
        "trained parameters and cost, and stops."
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


def main(words: list[str]) -> None:
    """Compare as the command line says, or print the plan."""
    settings = parse(CompareSettings, words, HELP)
    if settings.plan:
        print(plan_text(prepare(settings)))
        return
    try:
        run(settings)
    finally:
        PartialState().destroy_process_group()


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
