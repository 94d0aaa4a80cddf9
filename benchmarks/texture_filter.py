"""What ``render.texture_filter=mip`` gains at equal samples, and how far its pictures are from the others.

Needs Blender 5.2. The scenes, views and measure are those of sampling_quality.py; each filter is compared with its own
converged picture, and the two converged pictures with each other.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import common
import sampling_quality as sampling

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting

HELP = Help(
    usage="python benchmarks/texture_filter.py [key=value ...]",
    explanation="Compares the two texture filters of Blender 5.2 at equal samples.",
    examples=("python benchmarks/texture_filter.py out=runs/filter size=259",),
)
FILTERS = ("linear", "mip")
SAMPLES = (8, 32, 64)


@dataclass(frozen=True)
class Options:
    """What is measured."""

    out: str = setting("runs/filter", "output folder; running again continues")
    size: int = setting(259, "width and height of the pictures (rooms: half)", minimum=8)
    threads: int = setting(0, "threads of Cycles; 0: all", minimum=0)
    scene: str = setting("objects, ambient", "which scene", options=list(sampling.SCENES))


def main(words: list[str]) -> None:
    """Print one row per filter."""
    options = parse(Options, words, HELP)
    rows, targets = [], {}
    for name in FILTERS:
        out = Path(options.out) / name
        out.mkdir(parents=True, exist_ok=True)
        same = sampling.Options(size=options.size, threads=options.threads)
        stage, frame = sampling.load(options.scene, same, out, f"render.texture_filter={name}")
        targets[name] = sampling.converged(stage, frame, options.scene, out, options.size)
        views = [sampling.render(stage, frame, replace(sampling.BASE, samples=n), 100) for n in SAMPLES]
        cells = [f"{sampling.psnr(rgba, targets[name]):.2f} ({cpu_s:.1f})" for rgba, _, cpu_s in views]
        rows.append([name, *cells, f"{targets[name]['floor_db']:.1f}"])
    linear, mip = (targets[name] for name in FILTERS)
    apart = sampling.decibels(linear["picture"] - mip["picture"], linear["covered"])
    heads = [f"{n} samples, dB (CPU s)" for n in SAMPLES]
    common.print_table(options.scene, " | ".join([*heads, "noise of the converged, dB"]), rows)
    print(f"the converged pictures are {apart:.2f} dB apart")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
