"""What tuning did on the held-out scenes: the losses of the base model beside those of the tuned one.

Both are means over the same batches (``run.validation_steps``), so their difference is not one of the draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from megasynth_attr.core.pages.words import in_words, short, signed_text, table_text
from megasynth_train.training.losses import Losses

JUDGED = ("objective", "camera", "depth_regression", "depth_gradient")  # the others are parts of these, or confidence
TOLERANCE = 0.01  # of the base model's value: a smaller change is not called worse
LARGE = 3.0

HeldOut = Mapping[str, float | None]  # mean loss by name; None: not finite


def table(base: HeldOut, tuned: HeldOut) -> str:
    """Return one line per loss: of the base model, of the tuned one, and the change; lower is better in all."""
    names = [field.name for field in fields(Losses)]  # JSON does not keep their order
    rows = [(name, short(base[name]), short(tuned[name]), _change(base[name], tuned[name])) for name in names]
    return table_text([("on held-out scenes", "base", "tuned", "change"), *rows])


def worse(base: HeldOut, tuned: HeldOut) -> list[str]:
    """Return the losses in which the tuned model is worse, each with its change."""
    return [f"{name} {_change(base[name], tuned[name])}" for name in JUDGED if _is_worse(base[name], tuned[name])]


def warning(base: HeldOut | None, tuned: HeldOut | None) -> str:
    """Return what to tell the user of a tuned model that is worse than its base; empty if it is not, or not known."""
    if base is None or tuned is None or not (found := worse(base, tuned)):
        return ""
    return (
        f"WARNING: on the held-out scenes the tuned model is worse than the base model: {in_words(found)}. Try a lower "
        "optim.lr (lr_find=true suggests one), fewer optim.steps or more data; each try needs another out="
    )


def _is_worse(base: float | None, tuned: float | None) -> bool:
    if base is None or tuned is None:
        return base is not None
    return tuned > base + TOLERANCE * abs(base)


def _change(base: float | None, tuned: float | None) -> str:
    """Return the change in percent, a large one as a factor, as a difference where the objective is not positive."""
    if base is None or tuned is None:
        return "not finite"
    if min(base, tuned) <= 0:
        return signed_text(tuned - base)
    ratio = tuned / base
    return f"× {short(ratio)}" if ratio > LARGE else f"{signed_text(100 * (ratio - 1))} %"
