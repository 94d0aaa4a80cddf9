"""Choose what is trained: all weights, or adapters that PEFT puts into the model in place."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from megasynth_attr.core.codec import to_plain
from megasynth_attr.core.errors import ConfigError
from megasynth_train.adapters.adapted import Adapted, Base, initial_values
from megasynth_train.adapters.methods import MAIN, SPECTRAL, SUBSPACE, check_subspace_keys, plan, uncovered
from megasynth_train.adapters.parts import Row, parameter_rows, trained
from megasynth_train.adapters.start import read_start, restore_start, start_of, without_decomposition, write_start
from megasynth_train.adapters.subspace.layer import free_numbers
from megasynth_train.adapters.subspace.opening import open_basis, open_for_model
from megasynth_train.adapters.targets import find_targets, inside
from megasynth_train.subspace.basis import Basis
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.checkpoint import weights_hash
from megasynth_train.vggt.config import HEADS, SIZES, VGGTConfig
from megasynth_train.vggt.model import VGGT, freeze_encoder

# No loss reaches these: the point head has none, and the mask token belongs to the encoder's own pretraining.
WITHOUT_LOSS = ("point_head", "track_head", "aggregator.patch_embed.mask_token")


def adapt(
    model: VGGT, settings: AdapterSettings, *, total_steps: int, seed: int | None = None, start: Path | None = None
) -> Adapted:
    """Return ``model`` ready for training as ``settings`` say; the model is changed in place.

    ``total_steps`` scales AdaLoRA's schedule. The adapters' initial values depend on ``settings.seed`` (or ``seed``),
    the shapes and, for PiSSA and LoRA-XS, the base weights, whose decomposition is read from ``start`` if
    ``keep_start`` wrote it there for these weights and settings. Torch's global random state is left as it was. Raises
    ConfigError for settings that do not fit the model, or a model that is adapted already.
    """
    seed = settings.seed if seed is None else seed
    base = base_of(model)
    basis, notes = open_for_model(settings, model, base.weights_sha256)
    if basis is not None:
        notes = (*notes, *uncovered(find_targets(model, settings.targets), basis))
    if start is not None and settings.mode in SPECTRAL:
        found, note = read_start(start, base.weights_sha256, settings)
        notes = (*notes, note) if note else notes
    else:
        found = None
    wrapped = prepare(model, settings, total_steps, seed, basis, found)
    initial = initial_values(trained(model), settings.mode)
    return Adapted(model, settings, base, seed, total_steps, wrapped, initial, notes)


def trainable_counts(
    config: VGGTConfig, settings: AdapterSettings, total_steps: int = 24_000, basis: Basis | None = None
) -> tuple[Row, ...]:
    """Return the trained parameters of a model of that size by part and kind; allocates no memory for weights.

    ``basis`` takes the place of the file that mode=subspace names; only the shapes of its arrays are used.
    """
    if settings.mode == SUBSPACE:
        return _counted(config, settings, total_steps, basis or open_basis(settings.basis, settings.attributes))
    return _counted_once(config, settings, total_steps)


@functools.cache
def _counted_once(config: VGGTConfig, settings: AdapterSettings, total_steps: int) -> tuple[Row, ...]:
    """Return the counts of what needs no basis; every check of a manifest asks for the same again."""
    return _counted(config, settings, total_steps, None)


def _counted(config: VGGTConfig, settings: AdapterSettings, total_steps: int, basis: Basis | None) -> tuple[Row, ...]:
    with torch.device("meta"):
        model = VGGT(config)
        prepare(model, settings, total_steps, seed=0, basis=basis)
    return parameter_rows(trained(model), free_numbers(model))


def base_of(model: VGGT) -> Base:
    """Return the record of an unadapted model; ConfigError if it is adapted already."""
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ConfigError("this model has adapters already; adapt a fresh copy of it instead")
    config = to_plain(model.config)
    heads = {name: config[name] for name in HEADS}
    size = next((name for name, known in SIZES.items() if dataclasses.replace(known, **heads) == model.config), "")
    return Base(size, config, weights_hash(model))


def prepare(
    model: VGGT,
    settings: AdapterSettings,
    total_steps: int,
    seed: int,
    basis: Basis | None = None,
    start: Mapping[str, Tensor] | None = None,
) -> dict[str, PeftModel]:
    """Set ``requires_grad`` everywhere and put the adapters in place; return PEFT's view of each.

    ``start`` is what ``start_of`` returned for these weights and settings: then nothing is decomposed.
    """
    check_subspace_keys(settings)
    if settings.mode == "full":
        train_all(model, settings)
        return {}
    if settings.train_encoder:
        raise ConfigError(f"adapter.train_encoder=true needs mode=full, not mode={settings.mode}")
    configs = plan(model, settings, find_targets(model, settings.targets), total_steps, basis)
    with seeded(seed):
        if start is None:
            return inject(model, configs)
        wrapped = inject(model, {name: without_decomposition(config) for name, config in configs.items()})
    restore_start(model, start, settings.mode)
    wrapped[MAIN].peft_config[MAIN] = configs[MAIN]
    return wrapped


def keep_start(adapted: Adapted, path: Path) -> None:
    """Write into ``path``, for ``adapt``, what an adapter that has made no step derived from its base, if anything."""
    base, settings = adapted.base.weights_sha256, adapted.settings
    if settings.mode in SPECTRAL and read_start(path, base, settings)[0] is None:
        write_start(path, start_of(adapted.model, adapted.initial, settings.mode), base, settings)


def inject(model: VGGT, configs: Mapping[str, PeftConfig]) -> dict[str, PeftModel]:
    """Put the adapters of these names into the model, each active on its own modules; everything else is frozen."""
    freeze_encoder(model)
    wrapped: dict[str, PeftModel] = {}
    owner: dict[str, str] = {}  # module → adapter
    for adapter, config in configs.items():
        wrapped[adapter] = view = PeftModel(model, config, adapter_name=adapter)
        # PEFT leaves its configurations on the model, where a second method would take them for its own.
        del model.peft_config
        owner |= dict.fromkeys(cast(BaseTuner, view.base_model).targeted_module_names, adapter)
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            layer.set_adapter([owner[name]])  # adding the second adapter made it active in the first one's layers too
    return wrapped


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator, from which PEFT draws initial values, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed CUDA
        yield


def train_all(model: nn.Module, settings: AdapterSettings) -> None:
    """Set ``requires_grad`` for mode=full: everything a loss reaches, the encoder only if asked for."""
    if settings.targets:
        raise ConfigError("adapter.targets chooses what gets adapters; mode=full trains everything, leave it empty")
    frozen = WITHOUT_LOSS if settings.train_encoder else (*WITHOUT_LOSS, "aggregator.patch_embed")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not inside(name, frozen))
