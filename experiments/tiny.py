"""Does tuning M in a mined basis beat a random basis, and heads only, at equal parameters? A tiny model on new rooms.

    python experiments/tiny.py out=runs/attributes

Renders what is missing, trains one adapter per dataset of four attributes, mines them, and compares the methods on
furnished rooms, which the base has not seen: comparison/comparison.md. Running it again continues.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.pipeline import __main__ as pipeline
from megasynth_train import cluster, mine
from megasynth_train.compare import __main__ as compare

ATTRIBUTES = ("texture", "geometry", "camera", "lighting")
WIDE = "heads-wide"  # heads only, with about as many parameters as the subspace methods
METHODS = ("base", "heads", WIDE, "random", "subspace", "subspace-block", "lora-4")
SMALL = ["render.width_px=126", "render.height_px=126", "texture.bank_size_px=256", "stages=generate"]
TRAINING = [
    "model=vggt-tiny", "data.width_px=98", "data.views=[2,4]", "data.images_per_step=8", "data.validation_share=0",
    "data.workers=0", "loss.quantile=1", "optim.beta2=0.95", "run.checkpoint_every=0",
]  # fmt: skip
HELP = Help(
    "python experiments/tiny.py out=FOLDER [key=value ...]", "Compares a mined basis with a random one on a tiny model."
)


@dataclass(frozen=True)
class Settings:
    """What to run."""

    out: str = setting("runs/attributes", "output folder; running again continues")
    checkpoint: str = setting("shipped:vggt-tiny", "the base model")
    seeds: tuple[int, ...] = setting((0, 1, 2), "seeds of the downstream runs", minimum=0)
    steps: int = setting(150, "steps per adapter", minimum=1)
    downstream_steps: int = setting(150, "steps per downstream run", minimum=1)
    lr: float = setting(1e-3, "learning rate of the adapters", minimum=0)
    downstream_lr: float = setting(1e-3, "learning rate downstream", minimum=0)


def render(out: Path) -> None:
    """Render four datasets of each attribute, and two datasets of furnished rooms, which the base has not seen."""
    words = ["preset=demo", "seed=7", "dataset_count=4", "scene_count=6", "frames=8", "downstream="]
    pipeline.main([*words, *SMALL, f"out={out / 'data'}", f"cache={out / 'cache'}"])
    words = ["preset=megasynth", "seed=303", "dataset_count=2", "scene_count=8", "frames=6", "quality=draft"]
    pipeline.main([*words, *SMALL, f"out={out / 'rooms'}", f"cache={out / 'cache'}"])


def train_and_mine(settings: Settings, out: Path) -> Path:
    """Train one adapter per dataset and mine them; return the folder of the bases."""
    adapters, subspaces = out / "adapters_0", out / "subspaces_0"
    words = [f"experiment={out / 'data'}", f"out={adapters}", "seed=0", "run.seed=0", "mode=lora", "rank=4"]
    tuning = [f"checkpoint={settings.checkpoint}", f"steps={settings.steps}", f"lr={settings.lr}"]
    cluster.main([*words, *tuning, *TRAINING])
    words = [f"cluster={adapters}", f"out={subspaces}", "mining.dimension=8", "mining.splits=6"]
    mine.main([*words, f"mining.attributes=[{','.join(ATTRIBUTES)}]"])
    return subspaces


def downstream(settings: Settings, out: Path, subspaces: Path) -> None:
    """Train and evaluate every method on the rooms."""
    target = out / "comparison"
    data = [f"data={out / 'rooms' / 'megasynth_00'}", f"test.data={out / 'rooms' / 'megasynth_01'}", f"out={target}"]
    methods = [f"basis={subspaces}", f"methods=[{','.join(METHODS)}]", f"seeds={list(settings.seeds)}"]
    heads = ["adapter.head_rank=4", f"define.{WIDE}.like=heads", f"define.{WIDE}.adapter.head_rank=6"]
    tuning = [f"checkpoint={settings.checkpoint}", f"steps={settings.downstream_steps}", f"lr={settings.downstream_lr}"]
    compare.main(
        [*data, *methods, *heads, *tuning, *TRAINING, "test.views=4", "test.max_points=3000", "test.width_px=98"]
    )


def main(words: list[str]) -> None:
    """Run everything that is not finished yet."""
    settings = parse(Settings, words, HELP)
    out = Path(settings.out).resolve()
    render(out)
    downstream(settings, out, train_and_mine(settings, out))


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
