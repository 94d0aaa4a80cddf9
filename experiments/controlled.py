"""Does what an adapter learns belong to the attribute, to its dataset, or to chance? A controlled experiment.

    python experiments/controlled.py out=runs/controlled

Six conditions: one of texture, geometry, camera and lighting varies from scene to scene, nothing does, everything does.
All of them draw every factor from the same ranges (preset controlled_human); only the scopes differ. Renders what is
missing, trains one adapter of the aggregator per dataset and seed, and writes controlled_<steps>.json, .md and figures.
Running it again continues; analyse=true takes the adapters that are finished and trains none.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from controlled_analysis import analyse, finished, functional_controls, statistics
from controlled_figures import draw, draw_scenes, tables

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.temporary import replace_atomically
from megasynth_attr.pipeline import __main__ as pipeline
from megasynth_train import cluster

CONDITIONS = ("texture", "geometry", "camera", "lighting", "nothing", "everything")
HELP = Help(
    "python experiments/controlled.py out=FOLDER [key=value ...]",
    "Tests whether adapters share their attribute, their dataset or chance, with the same constants for all.",
)
TRAINING = [
    "model=vggt-tiny", "data.width_px=98", "data.views=[2,4]", "data.view_order=path", "data.validation_share=0",
    "data.workers=0", "loss.quantile=1", "optim.beta2=0.95", "mode=lora", "rank=4", "adapter.targets=aggregator\\..*",
]  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What to run."""

    out: str = setting("runs/controlled", "output folder; running again continues")
    checkpoint: str = setting("shipped:vggt-tiny", "the base model")
    conditions: tuple[str, ...] = setting(CONDITIONS, "what varies from scene to scene")
    datasets: int = setting(6, "datasets per condition that are rendered", minimum=2)
    trained: int = setting(0, "train on the first ones of each condition only; 0: all", minimum=0)
    seeds: tuple[int, ...] = setting((0, 1, 2), "seeds of the clusters of adapters", minimum=0)
    steps: int = setting(150, "steps per adapter", minimum=1)
    lr: float = setting(1e-3, "learning rate", minimum=0)
    images: int = setting(4, "images per step", minimum=2)
    scenes: int = setting(6, "scenes per dataset", minimum=1)
    frames: int = setting(8, "frames per scene", minimum=4)
    size_px: int = setting(126, "rendered size", minimum=28)
    workers: int = setting(0, "Blender processes at once; 0: from cores")
    analyse: bool = setting(False, "only analyse the adapters that are finished")
    dimension: int = setting(4, "dimensions of the bases", minimum=1)
    permutations: int = setting(10_000, "relabellings of the label test", minimum=100)
    functional: int = setting(2, "datasets per condition whose adapter is held out and evaluated; 0: none", minimum=0)


def render(settings: Settings, out: Path) -> None:
    """Render the datasets of every condition, and eight scenes of another seed in which everything varies."""
    size = [f"render.width_px={settings.size_px}", f"render.height_px={settings.size_px}", "texture.bank_size_px=256"]
    how = ["quality=draft", "stages=generate", "downstream=", f"workers={settings.workers}", "threads=1"]
    words = ["preset=controlled_human", f"frames={settings.frames}", *size, *how, f"cache={out / 'cache'}"]
    counts = [f"dataset_count={settings.datasets}", f"scene_count={settings.scenes}"]
    pipeline.main([*words, *counts, "seed=11", f"members=[{','.join(CONDITIONS)}]", f"out={out / 'data'}"])
    pipeline.main(
        [*words, "dataset_count=1", "scene_count=8", "seed=12", "members=[everything]", f"out={out / 'held_out'}"]
    )


def train(settings: Settings, out: Path) -> None:
    """Train an adapter per dataset and seed; the first datasets of all conditions come first."""
    chosen = [
        f"{condition}_{index:02d}"
        for condition in settings.conditions
        for index in range(settings.trained or settings.datasets)
    ]
    for seed in settings.seeds:
        words = [f"experiment={out / 'data'}", f"datasets=[{','.join(chosen)}]", f"seed={seed}", f"run.seed={seed}"]
        tuning = [f"checkpoint={settings.checkpoint}", f"steps={settings.steps}", f"lr={settings.lr}"]
        images = f"data.images_per_step={settings.images}"
        folder = f"out={adapters_folder(settings, out, seed)}"
        shards = settings.trained or settings.datasets
        for shard in range(shards):
            cluster.main(
                [*words, folder, *tuning, *TRAINING, images, "run.checkpoint_every=500", f"shard={shard + 1}/{shards}"]
            )


def adapters_folder(settings: Settings, out: Path, seed: int) -> Path:
    """Return where the adapters of a seed are."""
    return out / f"adapters_{settings.steps}_{seed}"


def _plain(value: Any) -> Any:
    """Return ``value`` with None for what is not a number: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def main(words: list[str]) -> None:
    """Run everything that is not finished yet, analyse it and write the results."""
    settings = parse(Settings, words, HELP)
    out = Path(settings.out).resolve()
    if not settings.analyse:
        render(settings, out)
        train(settings, out)
    members = finished({seed: adapters_folder(settings, out, seed) for seed in settings.seeds})
    what = {key: value for key, value in asdict(settings).items() if key != "out"}  # a folder is no result
    results = {"settings": what, **analyse(members, settings.dimension, settings.permutations)}
    results["statistics"] = statistics(out / "data", settings.conditions)
    if settings.functional:
        results["functional"] = functional_controls(
            members, out, settings.checkpoint, settings.functional, settings.dimension
        )
    name = f"controlled_{settings.steps}"
    replace_atomically(out / f"{name}.json", (json.dumps(_plain(results)) + "\n").encode())
    text = tables(results)
    replace_atomically(out / f"{name}.md", text.encode())
    draw(results, out, name)
    draw_scenes(out / "data", out / "controlled_scenes.png")
    print(text)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
