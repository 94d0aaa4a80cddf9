"""The names of methods, and the adapter settings each stands for. Free of PyTorch.

::

    base                       the base model as it is
    full, heads                all weights but the encoder's; plain LoRA on the heads alone
    heads-matched              heads with the rank whose parameter count is nearest to that of subspace
    lora-8                     rank 8; likewise rslora, dora, pissa, adalora and lora_xs (no number: adapter.rank)
    subspace                   a free M in the mined basis of all attributes
    subspace-block             the same with a block-diagonal M: attributes do not mix
    random, random-block       the same in a random basis of equal dimensions, a different one for each seed
    only-texture               subspace in the columns of these attributes (only-texture+geometry)
    without-texture            subspace in the columns of all attributes but these
    random-without-texture     only- and without- also follow subspace-block-, random- and random-block-
    paper                      all methods of the paper, and controls that are trained
    mean, mean-texture         not trained: base + the mean of the adapters that were mined, in the mined layers
    merge-ties                 not trained: base + these adapters merged by TIES, as PEFT combines them
    held-out                   not trained: base + an adapter that is left out; held-out-whole: with all it trained
    held-out-projected         what the basis of the others, mined without it, holds of it; held-out-random: a random
                               basis instead
    held-out-mean              the mean of the attribute's other adapters alone
    held-out-projected-mean    that mean, and what the basis holds of the rest; held-out-random-mean: a random one
    controls                   base and all that are not trained
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megasynth_attr.core.command.keys import nearest
from megasynth_attr.core.errors import ConfigError
from megasynth_train.training.settings import AdapterSettings, OptimSettings

BASE, PAPER, MATCHED, CONTROLS = "base", "paper", "heads-matched", "controls"
MEAN, TIES = "mean", "merge-ties"
HELD_OUT = {  # controls that leave out an adapter: what they keep of it
    "held-out": "",
    "held-out-whole": "whole",
    "held-out-mean": "mean",
    "held-out-projected": "projected",
    "held-out-random": "random",
    "held-out-projected-mean": "projected-mean",
    "held-out-random-mean": "random-mean",
}
RANKED = ("lora", "rslora", "dora", "pissa", "adalora", "lora_xs")
FRAMES = ("subspace-block", "random-block", "subspace", "random")  # longer names first: they share prefixes
MINED, RANDOM = "mined", "random"
_PAPER_RANKS = (16, 32, 64, 128, 256)
_PAPER_OTHERS = ("rslora-16", "dora-16", "pissa-16", "adalora-16")


@dataclass(frozen=True)
class Method:
    """One method of a comparison. ``adapter`` is None for the base model; ``basis`` is "", mined or random.

    ``matched``: the rank of the heads follows from the parameter count of ``subspace`` (prepare.py).
    """

    name: str
    adapter: AdapterSettings | None
    optim: OptimSettings
    basis: str = ""
    matched: bool = False


def expand(names: Sequence[str], attributes: Sequence[str], dimension: int) -> tuple[str, ...]:
    """Return ``names`` with ``paper`` and ``controls`` replaced by their lists, each name once.

    ``attributes`` and ``dimension`` are those of the basis (all its columns in a layer); without attributes the list
    has no method that needs a basis. LoRA-XS gets the rank at which a layer has as many parameters as ``subspace``.
    """
    listed = [BASE, "heads", "full", *(f"lora-{rank}" for rank in _PAPER_RANKS), *_PAPER_OTHERS]
    listed.append(f"lora_xs-{dimension}")
    if attributes:
        listed += [MATCHED, "subspace", "subspace-block", "random"]
    if len(attributes) > 1:
        listed += [f"without-{attribute}" for attribute in attributes]
    controls = [BASE, MEAN, *(f"{MEAN}-{attribute}" for attribute in attributes if len(attributes) > 1), TIES]
    lists = {PAPER: listed, CONTROLS: [*controls, *HELD_OUT]}
    return tuple(dict.fromkeys(one for name in names for one in lists.get(name, [name])))


def is_control(name: str) -> bool:
    """Return whether a built-in name is that of a model which is not trained, other than the base model."""
    return name in (MEAN, TIES) or name.startswith(f"{MEAN}-") or name in HELD_OUT


def frame_of(name: str) -> tuple[str, str] | None:
    """Return (frame, choice) of a built-in name, e.g. ("random", "without-texture"), or None if it needs no basis."""
    if name.startswith(("only-", "without-")):
        return "subspace", name
    for frame in FRAMES:
        if name == frame:
            return frame, ""
        if name.startswith((f"{frame}-only-", f"{frame}-without-")):
            return frame, name.removeprefix(f"{frame}-")
    return None


def builtin(name: str, attributes: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return the adapter's keys that a built-in name sets, and the basis it needs ("", mined or random).

    ConfigError for an unknown name, with the nearest known one, and for attributes that the basis lacks.
    """
    frame, choice = frame_of(name) or ("", "")
    if not attributes and (frame or name == MATCHED or is_control(name)):
        raise ConfigError(
            f"methods={name} needs a basis: give basis=, a folder of megasynth_train.mine or a basis file"
        )
    if is_control(name):
        if name.startswith(f"{MEAN}-"):
            _chosen(name, name.replace(MEAN, "only", 1), attributes)
        return {}, ""
    if name in ("full", "heads", BASE):
        return ({} if name == BASE else {"mode": name}), ""
    if name == MATCHED:
        return {"mode": "heads"}, ""
    if frame:
        mask = "block_diagonal" if frame.endswith("-block") else "full"
        keys = {"mode": "subspace", "attributes": _chosen(name, choice, attributes), "mask": mask}
        return keys, RANDOM if frame.startswith("random") else MINED
    mode, hyphen, rank = name.partition("-")
    if mode in RANKED and not hyphen:
        return {"mode": mode}, ""
    if mode in RANKED and rank.isascii() and rank.isdigit() and int(rank) > 0:
        return {"mode": mode, "rank": int(rank)}, ""
    if mode in RANKED:
        raise ConfigError(f"methods={name}: the rank must be a whole number above 0, e.g. {mode}-16")
    known = [
        BASE,
        "full",
        "heads",
        MATCHED,
        *RANKED,
        *FRAMES,
        "only-ATTRIBUTE",
        "without-ATTRIBUTE",
        PAPER,
        MEAN,
        TIES,
        *HELD_OUT,
        CONTROLS,
    ]
    raise ConfigError(
        f"methods={name} is unknown{nearest(name, known)}; known: {', '.join(known)}; a rank follows a hyphen "
        f"(lora-16); define methods of your own with define.{name}.adapter.mode=…"
    )


def _chosen(name: str, choice: str, attributes: Sequence[str]) -> list[str]:
    """Return the attributes that a choice (only-a+b, without-a+b) leaves, in the basis' order; empty: all of them."""
    if not choice:
        return []
    word, _, listed = choice.partition("-")
    given = listed.split("+")
    if unknown := [attribute for attribute in given if attribute not in attributes]:
        raise ConfigError(
            f"methods={name}: the basis has no attribute {unknown[0]!r}{nearest(unknown[0], list(attributes))}; it has "
            f"{', '.join(attributes)}"
        )
    left = [attribute for attribute in attributes if (attribute in given) == (word == "only")]
    if not left:
        raise ConfigError(f"methods={name} leaves out every attribute ({', '.join(attributes)}); use heads for that")
    return left
