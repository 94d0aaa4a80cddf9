"""Which modules of a VGGT are adapted: linears and convolutions outside the encoder, or those that match a pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from megasynth_attr.core.errors import ConfigError

# The encoder is frozen and runs without gradients; the point and track heads have no loss.
NEVER_ADAPTED = ("aggregator.patch_embed", "track_head", "point_head")
# Of a valid regular expression: an escaped character, a class (a ] that comes first is its member), or a character.
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


@dataclass(frozen=True)
class Targets:
    """Names of adapted modules in the order of the model: those of the aggregator, and those of the heads."""

    aggregator: tuple[str, ...]
    heads: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Return the modules of both."""
        return self.aggregator + self.heads


def find_targets(model: nn.Module, pattern: str = "") -> Targets:
    """Return the ``nn.Linear`` and ``nn.Conv2d`` modules outside ``NEVER_ADAPTED`` whose name matches ``pattern``.

    An empty pattern takes all of them: on vggt-1b 192 linears of the aggregator, 20 of the camera head and 30
    convolutions of the depth head (transposed convolutions stay frozen). Raises ConfigError if the pattern is not a
    regular expression, or if one of its alternatives (``a|b|c``) matches no such module.
    """
    possible = [name for name, module in model.named_modules() if _adaptable(name, module)]
    chosen = possible if not pattern else _matching(model, possible, pattern)
    return Targets(
        aggregator=tuple(name for name in chosen if name.startswith("aggregator.")),
        heads=tuple(name for name in chosen if not name.startswith("aggregator.")),
    )


def exact_pattern(names: Sequence[str]) -> str:
    """Return a regular expression whose full matches are exactly ``names``, one alternative per kind of layer.

    Names that differ only in their first number share an alternative: ``frame_blocks\\.(0|1|2)\\.attn\\.qkv``.
    """
    numbers: dict[tuple[str, str], list[str]] = {}
    plain = []
    for name in names:
        if found := re.search(r"(?<=\.)\d+(?=\.|$)", name):
            numbers.setdefault((name[: found.start()], name[found.end() :]), []).append(found.group())
        else:
            plain.append(re.escape(name))
    numbered = [f"{re.escape(head)}({'|'.join(n)}){re.escape(tail)}" for (head, tail), n in numbers.items()]
    return "|".join(numbered + plain)


def inside(name: str, prefixes: Sequence[str]) -> bool:
    """Return whether ``name`` is one of ``prefixes`` or lies below one of them."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _adaptable(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d) and not inside(name, NEVER_ADAPTED)


def _matching(model: nn.Module, possible: Sequence[str], pattern: str) -> list[str]:
    try:
        whole = re.compile(pattern)
        parts = {text: re.compile(text) for text in _alternatives(pattern)}
    except re.error as error:
        raise ConfigError(f"adapter.targets={pattern}: not a regular expression ({error})") from None
    for text, part in parts.items():
        if any(part.fullmatch(name) for name in possible):
            continue
        others = [name for name, _ in model.named_modules() if name and part.fullmatch(name)]
        reason = (
            f"it matches {others[0]}, which is not a linear layer or convolution outside the encoder"
            if others
            else "it must match whole names, e.g. aggregator\\.frame_blocks\\.\\d+\\.attn\\.qkv or camera_head\\..*"
        )
        raise ConfigError(f"adapter.targets={pattern}: {text!r} matches no module that can be adapted; {reason}")
    return [name for name in possible if whole.fullmatch(name)]


def _alternatives(pattern: str) -> list[str]:
    """Return the alternatives of ``pattern`` that are outside groups and character classes."""
    found, depth = [""], 0
    for token in _TOKEN.findall(pattern):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if token == "|" and depth == 0:
            found.append("")
        else:
            found[-1] += token
    return found
