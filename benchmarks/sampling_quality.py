"""Which samples, threshold and denoiser settings reach a given picture quality soonest? Measures, tabulates, plots.

Three scenes of the presets (objects under ambient light, objects under suns, a room), one view each. Every candidate
is rendered ``repeats`` times with different seeds; candidates take turns, so that a slow minute affects all of them.
Error: root mean square difference of our 8-bit sRGB values to a converged picture (two independent halves without
denoiser), over the covered pixels, given as PSNR and averaged over seeds. Values are composited over black, because
the straight colour of an edge pixel with very little coverage is noise. Time: of the whole ``render_view`` call with
the scene already loaded, in wall and CPU seconds (the latter hardly depend on other programs), the smallest of the
repeats.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import common  # noqa: F401  the checkout's path
import numpy as np

from megasynth_attr.blender.build import build_scene
from megasynth_attr.blender.quality import QUALITIES, Quality, apply_quality
from megasynth_attr.blender.render import render_view
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.pages.figures import new_figure, save_png
from megasynth_attr.core.pages.words import markdown_table
from megasynth_attr.farm.library import open_library
from megasynth_attr.scene.config import resolve
from megasynth_attr.scene.sample import sample_scene

HELP = Help(
    usage="python benchmarks/sampling_quality.py [key=value ...]",
    explanation="Measures which samples, threshold and denoiser settings reach a given picture quality soonest.",
    examples=(
        "python benchmarks/sampling_quality.py out=runs/sampling size=259 repeats=2",
        "python benchmarks/sampling_quality.py out=runs/sampling size=259 report=true",
    ),
)
SCENES = {
    "objects, ambient": ("preset=geometry", 3, 0),  # preset, scene, frame
    "objects, suns": ("preset=lighting", 1, 0),
    "room": ("preset=megasynth", 0, 0),  # at half the size: it takes ten times as long per pixel
}
CONVERGED_SAMPLES = {"objects, ambient": 1024, "objects, suns": 1024, "room": 512}  # each of two halves
BASE = Quality(32)
REFERENCE = QUALITIES["reference"]
FULL_TRANSPORT = "converged, with caustics, unclamped"


@dataclass(frozen=True)
class Options:
    """What is measured."""

    out: str = setting("runs/sampling", "output folder; running again continues")
    size: int = setting(259, "width and height of the pictures (rooms: half)", minimum=8)
    repeats: int = setting(2, "renderings of every candidate, with different seeds", minimum=1)
    report: bool = setting(False, "only write tables and plot of existing measurements")
    threads: int = setting(0, "threads of Cycles; 0: all", minimum=0)
    minutes: float = setting(1000.0, "start no rendering after this many minutes", minimum=0)


def candidates() -> dict[str, Quality]:
    """Return the measured settings by name; the name tells how they differ."""
    found = {"reference: 64 ACCURATE": REFERENCE}
    for samples in (4, 8, 16, 24, 32, 40, 48, 64):
        found[f"{samples} FAST"] = replace(BASE, samples=samples)
    for samples in (8, 16, 32, 48):
        for prefilter in ("NONE", "ACCURATE"):
            found[f"{samples} {prefilter}"] = replace(BASE, samples=samples, prefilter=prefilter)
        found[f"{samples}, no denoiser"] = replace(BASE, samples=samples, denoise=False)
    found["64 NONE"] = replace(REFERENCE, prefilter="NONE")
    found["64, no denoiser"] = replace(REFERENCE, denoise=False)
    for guides in ("RGB_ALBEDO", "RGB"):
        found[f"32 FAST, guides {guides}"] = replace(BASE, guides=guides)
    for threshold in (0.02, 0.05, 0.1):
        found[f"64 FAST, adaptive {threshold}"] = replace(
            BASE, samples=64, adaptive_threshold=threshold, min_samples=16
        )
    found["32 FAST, no light tree"] = replace(BASE, light_tree=False)
    return found


def main(words: list[str]) -> None:
    """Measure what the command line asks for, and write the tables and the plot."""
    options = parse(Options, words, HELP)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / f"measured_{options.size}px.jsonl"
    if not options.report:
        measure(log, options)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    table = summary(rows)
    (out / "sampling.json").write_text(json.dumps(table, indent=1) + "\n")
    text = "\n\n".join(markdown(table, scene) for scene in SCENES if scene in table)
    (out / "sampling.md").write_text(text + "\n")
    print(text)
    plot(table, out / "sampling.png")


def measure(log: Path, options: Options) -> None:
    """Append one line per rendering to ``log``, skipping those that it has already."""
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["scene"], row["name"], row["repeat"]) for row in rows}
    deadline = time.monotonic() + 60 * options.minutes
    for scene_name in SCENES:
        work = [(r, n, q) for r in range(options.repeats) for n, q in candidates().items()]
        todo = [(r, n, q) for r, n, q in work if (scene_name, n, r) not in done]
        if not todo:
            continue
        stage, frame = load(scene_name, options, log.parent)
        target = converged(stage, frame, scene_name, log.parent, options.size)
        limits = {"scene": scene_name, "repeat": 0, "quality": {}, "wall_s": 0, "cpu_s": 0}
        if (scene_name, "converged", 0) not in done:
            append(log, limits | {"name": "converged", "psnr": target["floor_db"]})
        if (scene_name, FULL_TRANSPORT, 0) not in done:
            rgba = render_full_transport(stage, frame, CONVERGED_SAMPLES[scene_name])
            append(log, limits | {"name": FULL_TRANSPORT, "psnr": psnr(rgba, target)})
        render(stage, frame, BASE, 99)  # loads meshes and textures
        for repeat, name, quality in todo:
            if time.monotonic() > deadline:
                print("out of time; run again to continue")
                return
            rgba, wall_s, cpu_s = render(stage, frame, quality, 100 + repeat)
            row = {"scene": scene_name, "name": name, "repeat": repeat, "psnr": psnr(rgba, target)}
            append(log, row | {"wall_s": wall_s, "cpu_s": cpu_s, "quality": asdict(quality)})


def load(scene_name: str, options: Options, out: Path, *more: str) -> tuple[Any, int]:
    preset, index, frame = SCENES[scene_name]
    size = options.size // (2 if scene_name == "room" else 1)
    words = [preset, f"render.width_px={size}", f"render.height_px={size}", "training_layout=false", *more]
    config = resolve(words).members[0]
    library = open_library(config, out / "cache")
    scene = sample_scene(config, 0, index, library.records)
    stage = build_scene(
        scene, library.assets_for(scene), render=config.render, write=config.write, threads=options.threads
    )
    return stage, frame


def render(stage: Any, frame: int, quality: Quality, seed: int) -> tuple[np.ndarray, float, float]:
    """Return (rgba uint8, wall seconds, CPU seconds) of one rendering."""
    apply_quality(stage.blender_scene, quality, stage.render.max_bounces)
    stage.scene = replace(stage.scene, noise_seed=seed * 1000)
    wall, cpu = time.perf_counter(), time.process_time()
    view = render_view(stage, frame)
    return view.frame.rgba, time.perf_counter() - wall, time.process_time() - cpu


def render_full_transport(stage: Any, frame: int, samples: int) -> np.ndarray:
    """Return the picture with caustics and without clamping, unlike all our quality settings."""
    apply_quality(stage.blender_scene, replace(BASE, samples=samples, denoise=False), stage.render.max_bounces)
    cycles = stage.blender_scene.cycles
    cycles.caustics_reflective = cycles.caustics_refractive = True
    cycles.sample_clamp_indirect = 0.0
    return render_view(stage, frame).frame.rgba


def converged(stage: Any, frame: int, scene_name: str, out: Path, size: int) -> dict[str, Any]:
    """Return the converged picture (float display values), the covered pixels, and its own noise as PSNR."""
    file = out / f"converged_{scene_name.replace(', ', '_')}_{size}px.npz"
    if not file.exists():
        exact = replace(BASE, samples=CONVERGED_SAMPLES[scene_name], denoise=False)
        halves = [render(stage, frame, exact, seed)[0].astype(np.float32) for seed in (1, 2)]
        np.savez(file, first=halves[0], second=halves[1])
    first, second = np.load(file)["first"], np.load(file)["second"]
    covered = (first + second)[..., 3] > 0
    first, second = over_black(first), over_black(second)
    noise = ((first - second)[covered] ** 2).mean() / 4  # variance of the mean of two halves
    return {"picture": (first + second) / 2, "covered": covered, "floor_db": float(10 * np.log10(255**2 / noise))}


def over_black(rgba: np.ndarray) -> np.ndarray:
    """Return H×W×3 display values 0 … 255 of straight RGBA over black."""
    return rgba[..., :3].astype(np.float32) * (rgba[..., 3:].astype(np.float32) / 255)


def psnr(rgba: np.ndarray, target: dict[str, Any]) -> float:
    return decibels(over_black(rgba) - target["picture"], target["covered"])


def decibels(difference: np.ndarray, covered: np.ndarray) -> float:
    """Return a difference of pictures (H×W×3, 0 … 255) over the covered pixels as PSNR."""
    return float(10 * np.log10(255**2 / (difference[covered] ** 2).mean()))


def append(log: Path, row: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(
        f"{row['scene']:18} {row['name']:34} {row['psnr']:6.2f} dB {row['wall_s']:7.2f} s {row['cpu_s']:7.2f} cpu-s",
        flush=True,
    )


def summary(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return per scene the candidates with mean PSNR and smallest times, also relative to the scene's reference."""
    table: dict[str, list[dict[str, Any]]] = {}
    for scene in dict.fromkeys(row["scene"] for row in rows):
        mine = [row for row in rows if row["scene"] == scene]
        entries = []
        for name in dict.fromkeys(row["name"] for row in mine):
            same = [row for row in mine if row["name"] == name]
            best = {key: min(row[key] for row in same) for key in ("wall_s", "cpu_s")}
            mean = float(np.mean([row["psnr"] for row in same]))
            entries.append({"name": name, "quality": same[0]["quality"], "psnr": mean, **best, "repeats": len(same)})
        reference = next((e for e in entries if e["name"].startswith("reference")), None)
        for entry in entries if reference else ():
            entry["gain_db"] = entry["psnr"] - reference["psnr"]
            entry["time_share"] = entry["cpu_s"] / reference["cpu_s"]
        table[scene] = entries
    return table


def markdown(table: dict[str, list[dict[str, Any]]], scene: str) -> str:
    """Return the table of one scene, the quickest setting first."""
    rows = [["setting", "PSNR dB", "to reference dB", "s (wall)", "s (CPU)", "of reference"]]
    for e in sorted(table[scene], key=lambda e: e["cpu_s"]):
        if e["cpu_s"] == 0:
            what = "the converged picture's own noise" if e["name"] == "converged" else e["name"]
            rows.append([f"*{what}*", f"{e['psnr']:.2f}", "", "", "", ""])
            continue
        relative = (f"{e['gain_db']:+.2f}", f"{e['time_share']:.0%}") if "gain_db" in e else ("", "")
        times = f"{e['wall_s']:.2f}", f"{e['cpu_s']:.2f}"
        rows.append([e["name"], f"{e['psnr']:.2f}", relative[0], *times, relative[1]])
    return f"### {scene}\n\n{markdown_table(rows, aligned=False)}"


def plot(table: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw PSNR over time, one panel per scene whose reference was measured, one line per prefilter."""
    table = {scene: entries for scene, entries in table.items() if "gain_db" in entries[0]}
    if not table:
        return
    figure = new_figure(5 * len(table), 4.2)
    axes = figure.subplots(1, len(table), squeeze=False)
    for axis, (scene, entries) in zip(axes[0], table.items(), strict=True):
        for label, chosen in families(entries):
            axis.plot([e["cpu_s"] for e in chosen], [e["psnr"] for e in chosen], "o-", label=label, markersize=4)
        reference = next(e for e in entries if e["name"].startswith("reference"))
        axis.plot(reference["cpu_s"], reference["psnr"], "k*", markersize=14, label="reference: 64, ACCURATE")
        axis.axhline(reference["psnr"], color="black", linewidth=0.5)
        axis.axvline(reference["cpu_s"] / 2, color="black", linewidth=0.5, linestyle=":")
        axis.set(title=scene, xlabel="CPU seconds per frame", ylabel="PSNR of 8-bit sRGB, dB", xscale="log")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.set_dpi(110)
    save_png(figure, path)


def families(entries: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield (label, entries by time) of the settings that differ only in one number."""
    for prefilter in ("NONE", "FAST", "ACCURATE"):
        plain = [e for e in entries if e["name"].split(" ", 1)[-1] == prefilter and e["name"][0].isdigit()]
        yield f"{prefilter}: 8 … 64 samples", sorted(plain, key=lambda e: e["cpu_s"])
    adaptive = [e for e in entries if "adaptive" in e["name"]]
    yield "FAST, adaptive, at most 64", sorted(adaptive, key=lambda e: e["cpu_s"])


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
