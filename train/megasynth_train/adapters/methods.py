"""From ``AdapterSettings`` to PEFT configurations: which method on which modules, with which rank and scale.

Every method but ``subspace`` is PEFT's own. PiSSA and PSOFT work on linears only and AdaLoRA shares one budget of
ranks, so these three adapt the aggregator and the heads get plain LoRA, as a second adapter named ``heads``.
``task_type`` stays unset: with it PEFT would wrap the forward pass and pass ``input_ids``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import cast

from peft import AdaLoraConfig, LoraConfig, PeftConfig, PsoftConfig
from torch import Tensor, nn

from megasynth_attr.core.errors import ConfigError
from megasynth_train.adapters.subspace.config import SubspaceConfig
from megasynth_train.adapters.subspace.opening import MODE as SUBSPACE
from megasynth_train.adapters.targets import Targets, exact_pattern
from megasynth_train.subspace.basis import Basis
from megasynth_train.training.settings import SUBSPACE_KEYS, TWO_ADAPTERS, AdapterSettings, head_rank

MAIN, HEADS = "default", "heads"  # names of the two adapters; PEFT saves "default" at the top of the folder
SPECTRAL = ("pissa", "lora_xs")  # start from the singular vectors of the base weight
ADALORA_EXTRA = 1.5  # rank at the start / rank at the end, the ratio of the AdaLoRA paper and of PEFT's defaults


def adalora_schedule(total_steps: int) -> dict[str, int]:
    """Return AdaLoRA's schedule for a run: 10 % at full rank, 60 % of falling budget, 30 % at the final ranks.

    The keys are PEFT's: ``tinit`` and ``tfinal`` steps at both ends, ``deltaT`` steps between two cuts. There are about
    600 cuts, so that each sees a smoothed importance. (The paper's code kept PEFT's defaults, with which all cuts are
    made by step 20 of 24,000.) The middle phase has at least one step.
    """
    tfinal = min(round(0.3 * total_steps), total_steps - 1)
    tinit = min(round(0.1 * total_steps), total_steps - tfinal - 1)
    return {"tinit": tinit, "tfinal": tfinal, "deltaT": max(1, total_steps // 1000)}


def plan(
    model: nn.Module, settings: AdapterSettings, targets: Targets, total_steps: int, basis: Basis | None = None
) -> dict[str, PeftConfig]:
    """Return the adapters of a mode other than ``full``, by name.

    ``basis`` is that of mode=subspace, chosen and checked. ConfigError if mode, targets and rank do not fit together.
    """
    _check_useful(model, settings, targets)
    if basis is not None:
        return {MAIN: _subspace(settings, targets, basis)}
    heads_only = settings.mode == "heads"
    if heads_only and not targets.heads:
        raise ConfigError(f"adapter.mode=heads: adapter.targets={settings.targets} names no module of the heads")
    if heads_only:
        return {MAIN: _lora(targets.heads, head_rank(settings), settings)}
    if settings.mode not in TWO_ADAPTERS:
        return {MAIN: _lora_everywhere(settings, targets)}
    if not targets.aggregator:
        raise ConfigError(
            f"adapter.mode={settings.mode} adapts the aggregator, but adapter.targets={settings.targets} names none of "
            "its modules; use mode=lora or mode=heads for the heads alone"
        )
    if settings.mode in SPECTRAL:
        _check_rank(model, settings, targets.aggregator)
    configs: dict[str, PeftConfig] = {MAIN: _method(settings, targets.aggregator, total_steps)}
    if targets.heads:
        configs[HEADS] = _lora(targets.heads, head_rank(settings), settings)
    return configs


def check_subspace_keys(settings: AdapterSettings) -> None:
    """Raise ConfigError for a key of mode=subspace that another mode would ignore."""
    if settings.mode == SUBSPACE:
        return
    defaults = AdapterSettings()
    for field in dataclasses.fields(settings):
        if field.name in SUBSPACE_KEYS and getattr(settings, field.name) != getattr(defaults, field.name):
            raise ConfigError(f"adapter.{field.name} is for mode=subspace; mode={settings.mode} does not use it")


def uncovered(targets: Targets, basis: Basis) -> tuple[str, ...]:
    """Return notes for the user on layers that the basis or the targets leave out."""
    bare = [name for name in targets.aggregator if name not in basis.layers]
    unused = [name for name in basis.layers if name not in targets.all]
    notes = []
    if bare:
        notes.append(
            f"{len(bare)} of {len(targets.aggregator)} aggregator layers have no columns in the basis and stay as they "
            f"are; the first is {bare[0]}"
        )
    if unused:
        notes.append(
            f"adapter.targets leaves {len(unused)} of {len(basis.layers)} layers of the basis unused; the first is "
            f"{unused[0]}"
        )
    return tuple(notes)


def _subspace(settings: AdapterSettings, targets: Targets, basis: Basis) -> SubspaceConfig:
    """Return the one adapter of mode=subspace: M in the basis' layers, plain LoRA on the heads."""
    covered = tuple(name for name in targets.aggregator if name in basis.layers)
    if not covered:
        raise ConfigError(
            f"adapter.mode=subspace: none of the {len(targets.aggregator)} chosen aggregator layers has columns in the "
            f"basis {settings.basis}; choose layers of the basis, or use mode=heads for the heads alone"
        )
    rank = head_rank(settings)
    config = SubspaceConfig(
        r=rank,
        lora_alpha=_alpha(settings, rank),
        target_modules=exact_pattern(covered + targets.heads),
        basis=settings.basis,
        attributes=list(basis.attributes),
        mask=settings.mask,
        basis_norm=settings.basis_norm,
        m_init=settings.m_init,
        scale=settings.scale,
    )
    config.opened = basis
    return config


def _alpha(settings: AdapterSettings, rank: int) -> int:
    return cast(int, settings.alpha or 2 * rank)  # PEFT only divides it by the rank, so it may be a fraction


def _lora(modules: Sequence[str], rank: int, settings: AdapterSettings) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=_alpha(settings, rank), target_modules=exact_pattern(modules))


def _lora_everywhere(settings: AdapterSettings, targets: Targets) -> LoraConfig:
    """Return LoRA, rsLoRA or DoRA on all targets; another rank of the heads is a pattern in the same adapter."""
    other = head_rank(settings)
    differs = bool(targets.heads) and other != settings.rank
    heads = exact_pattern(targets.heads)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=_alpha(settings, settings.rank),
        target_modules=exact_pattern(targets.all),
        use_rslora=settings.mode == "rslora",
        use_dora=settings.mode == "dora",
        rank_pattern={heads: other} if differs else {},
        alpha_pattern={heads: _alpha(settings, other)} if differs else {},
    )


def _method(settings: AdapterSettings, modules: Sequence[str], total_steps: int) -> PeftConfig:
    pattern, rank, alpha = exact_pattern(modules), settings.rank, _alpha(settings, settings.rank)
    if settings.mode == "pissa":
        return LoraConfig(r=rank, lora_alpha=alpha, target_modules=pattern, init_lora_weights="pissa")
    if settings.mode == "lora_xs":
        # B(R - I)A with frozen singular vectors A, B and a free R that starts at I; alpha cancels inside PSOFT
        return PsoftConfig(
            r=rank, psoft_alpha=rank, target_modules=pattern, psoft_orth=False, psoft_mag_a=False, psoft_mag_b=False
        )
    start, schedule = math.ceil(ADALORA_EXTRA * rank), adalora_schedule(total_steps)
    return AdaLoraConfig(
        init_r=start,
        target_r=rank,
        lora_alpha=cast(int, alpha / rank * start),  # PEFT divides by the rank at the start
        target_modules=pattern,
        total_step=total_steps,
        tinit=schedule["tinit"],
        tfinal=schedule["tfinal"],
        deltaT=schedule["deltaT"],
    )


def _check_useful(model: nn.Module, settings: AdapterSettings, targets: Targets) -> None:
    """Raise ConfigError for a rank that no target's update can reach: it would only take memory, perhaps all of it."""
    sizes = {name: min(_weight(model, name).flatten(1).shape) for name in targets.all}
    if not sizes:
        return  # the caller refuses missing targets
    name = max(sizes, key=lambda module: sizes[module])
    ranks = {"head_rank" if settings.head_rank else "rank": head_rank(settings) if targets.heads else 0}
    if settings.mode not in ("heads", SUBSPACE):
        ranks["rank"] = settings.rank
    for key, rank in ranks.items():
        if rank > sizes[name]:
            outputs, inputs = _weight(model, name).flatten(1).shape
            raise ConfigError(
                f"adapter.{key}={rank} is more than any adapted layer can use: the largest, {name}, has {outputs} "
                f"outputs and {inputs} inputs; choose {sizes[name]} or less"
            )


def _weight(model: nn.Module, name: str) -> Tensor:
    return cast(nn.Linear, model.get_submodule(name)).weight


def _check_rank(model: nn.Module, settings: AdapterSettings, modules: Sequence[str]) -> None:
    sizes = {name: min(_weight(model, name).shape) for name in modules}
    name = min(sizes, key=lambda module: sizes[module])
    if settings.rank > sizes[name]:
        raise ConfigError(
            f"adapter.rank={settings.rank}: mode={settings.mode} starts from singular vectors, and {name} has only "
            f"{sizes[name]}"
        )
