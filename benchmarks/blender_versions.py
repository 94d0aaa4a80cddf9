"""How far apart are the pictures and depths of two Blender versions, for the same scenes and settings?

Each preset is rendered by both, with equal seeds, samples and denoiser. Pictures: PSNR of our 8-bit sRGB values over
the pixels that show something, the worst view and all views together. Depth: relative difference, and pixels that only
one of the two hits.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
from sampling_quality import decibels, over_black

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import EnvironmentProblem, run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.dataset.reader import open_dataset

HELP = Help(
    usage="python benchmarks/blender_versions.py first=PYTHON second=PYTHON [key=value ...]",
    explanation="Renders the same scenes with the bpy packages of two Pythons and compares pictures and depths.",
    examples=("python benchmarks/blender_versions.py first=.venv/bin/python second=.venv-3.13/bin/python",),
)


@dataclass(frozen=True)
class Options:
    """What is compared."""

    first: str = setting(".venv/bin/python", "a Python with one bpy package")
    second: str = setting(".venv-3.13/bin/python", "a Python with another")
    out: str = setting("runs/versions", "output folder; running again continues")
    presets: tuple[str, ...] = setting(("texture", "geometry", "lighting", "haze", "megasynth"), "what is rendered")
    scenes: str = setting("0-2", "which scenes of each preset's first dataset")
    frames: int = setting(2, "views of each scene", minimum=1)
    size: int = setting(252, "width and height of the pictures; a multiple of 14", minimum=14)
    quality: str = setting("default", "sampling quality")


def main(words: list[str]) -> None:
    """Print a row per preset."""
    options, rows = parse(Options, words, HELP), []
    for preset in options.presets:
        pairs = list(zip(*(views(options, preset, name, python) for name, python in sides(options)), strict=True))
        squares, covered_pixels, worst, apart, grazed, hit_pixels = 0.0, 0, np.inf, [], 0, 0
        for one, other in pairs:
            covered = (one.image[..., 3] > 0) | (other.image[..., 3] > 0)
            difference = over_black(one.image) - over_black(other.image)
            worst = min(worst, decibels(difference, covered))
            squares += float((difference[covered] ** 2).sum())
            covered_pixels += 3 * int(covered.sum())
            hits = [view.depth_z > 0 for view in (one, other)]
            both = hits[0] & hits[1]
            apart.append(np.abs(one.depth_z[both] / other.depth_z[both] - 1))
            grazed += int((hits[0] != hits[1]).sum())
            hit_pixels += int(both.sum())
        mean = 10 * np.log10(255**2 * covered_pixels / squares)
        off = float((np.concatenate(apart) > 2e-6).mean())
        rows.append([preset, len(pairs), f"{mean:.1f}", f"{worst:.1f}", f"{off:.4%}", f"{grazed} of {hit_pixels:,}"])
    heads = "views | PSNR, dB | worst view, dB | depths apart by > 2·10⁻⁶ | pixels only one hits"
    common.print_table("preset", heads, rows)


def sides(options: Options) -> list[tuple[str, str]]:
    return [("first", options.first), ("second", options.second)]


def views(options: Options, preset: str, name: str, python: str) -> list:
    """Return the views of a preset that one of the two has rendered."""
    out = Path(options.out) / name / preset
    words = [f"preset={preset}", f"out={out}", "datasets=0", f"scenes={options.scenes}", f"frames={options.frames}"]
    size = options.size // 2 if preset == "megasynth" else options.size  # rooms take ten times as long per pixel
    words += [f"render.width_px={size}", f"render.height_px={size}", f"quality={options.quality}", "stages=generate"]
    words += [f"cache={Path(options.out) / 'cache'}", "blender=module"]
    done = subprocess.run([python, "-m", "megasynth_attr.pipeline", *words], cwd=common.ROOT, check=False)
    if done.returncode:
        raise EnvironmentProblem(f"{name}={python}: rendering ended with exit code {done.returncode}; see above")
    return [view for scene in open_dataset(next(out.glob("*_00"))).scenes for view in scene.views]


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
