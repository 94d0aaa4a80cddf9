"""What training takes on GPUs of every size: the words that fit, images at once, seconds and hours. Computed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.pages.words import markdown_table
from megasynth_train.cost.layers import Tuning
from megasynth_train.cost.memory import GIB, fit, images_at_once, largest_step, most_views
from megasynth_train.cost.step import expected_s, mean_step, tuning_of
from megasynth_train.training.settings import AdapterSettings, TrainSettings
from megasynth_train.vggt.config import SIZES

BASIS_COLUMNS = 256  # a basis counts as one of so many, if the model is that wide; its memory hardly depends on it
H200_TFLOPS = 989.0
# Measured over expected seconds of a step of 4 × 8 on an H200 with PyTorch's own attention (benchmarks/train_step.md)
SLOWER_COMPILED, SLOWER_UNCOMPILED = 1.02 / 0.82, 1.52 / 0.82
ADAPTERS = {
    "mode=lora rank=16": AdapterSettings(),
    f"mode=subspace, {BASIS_COLUMNS} columns": AdapterSettings(mode="subspace"),
    "mode=full": AdapterSettings(mode="full"),
}
NOTE = (
    "Computed, not measured, for pictures of the run's size. GiB: what a run takes at its peak, from sizes and the "
    "figures of one H200. Seconds: rates assumed for an H200, corrected by one step measured there, and for others "
    "by the ratio of the TFLOP/s that their makers state. Loading is not counted; smaller pieces count as no slower."
)


@dataclass(frozen=True)
class Card:
    """A GPU: memory in 10⁹ bytes, and its dense bf16 TFLOP/s in the maker's data sheet (fp32 accumulation)."""

    name: str
    gigabytes: int
    tflops: float


CARDS = (
    Card("RTX 4080", 16, 97.5),
    Card("RTX 4090", 24, 165.0),
    Card("A100", 40, 312.0),
    Card("L40S", 48, 362.0),
    Card("H100", 80, 989.0),
    Card("RTX PRO 6000", 96, 504.0),
    Card("H200", 141, H200_TFLOPS),
)


def run_tuning(settings: TrainSettings) -> Tuning:
    """Return what a run trains, for its cost; a basis need not be there yet."""
    return tuning_of(settings.adapter, min(BASIS_COLUMNS, SIZES[settings.model.size].width))


def words(settings: TrainSettings) -> str:
    """Return the words of the command line that say how much memory a step may take."""
    at_once = settings.data.scenes_at_once
    chosen = settings.model.kept_words() + [f"data.scenes_at_once={at_once}"] * bool(at_once)
    return " ".join(chosen) or "everything kept, all scenes at once"


def card_table(settings: TrainSettings) -> str:
    """Return a Markdown table: what each of ``ADAPTERS`` takes on each of ``CARDS`` with these settings otherwise."""
    steps = settings.optim.steps
    rows = [[
        "GB", "such as", "trained", "words", "images at once", "GiB", "s per step", f"hours for {steps:,} steps",
    ]]  # fmt: skip
    for card in CARDS:
        for name, adapter in ADAPTERS.items():
            wanted = replace(settings, adapter=adapter)
            rows.append([str(card.gigabytes), card.name, name, *_cells(wanted, card)])
    return f"{markdown_table(rows, aligned=False)}\n\n{NOTE}"


def _cells(settings: TrainSettings, card: Card) -> list[str]:
    tuning, free = run_tuning(settings), card.gigabytes * 1e9
    try:
        chosen = fit(settings, tuning, free)
    except EnvironmentProblem:
        views = most_views(settings, tuning, free)
        return [f"does not fit; at most {views} views a scene do" if views else "does not fit", *["–"] * 4]
    seconds = mean_step(chosen, tuning, expected_s) * H200_TFLOPS / card.tflops
    seconds *= SLOWER_COMPILED if chosen.model.compile else SLOWER_UNCOMPILED
    peak = largest_step(chosen, tuning)[0] / GIB
    hours = seconds * chosen.optim.steps / 3600
    shown = f"`{words(chosen)}`" if "=" in words(chosen) else words(chosen)
    return [shown, str(images_at_once(chosen)), f"{peak:.0f}", f"{seconds:.1f}", f"{hours:.0f}"]
