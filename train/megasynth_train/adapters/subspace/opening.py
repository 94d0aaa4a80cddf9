"""Open the basis an adapter is trained in, and make sure that it fits this model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_train.adapters.subspace.config import SubspaceConfig
from megasynth_train.adapters.subspace.layer import SubspaceLinear
from megasynth_train.subspace.basis import Basis
from megasynth_train.subspace.basis_file import read_basis
from megasynth_train.training.settings import AdapterSettings
from megasynth_train.vggt.checkpoint import rounding_note

MODE = "subspace"
IDENTITY = "the columns of adapter.basis (SHA-256)"


def open_basis(path: str, attributes: Sequence[str] = (), sha256: str = "") -> Basis:
    """Return the columns of ``attributes`` (none: of all) in the file ``path``.

    Raises DatasetError for a file that is not a basis, ConfigError for an unknown attribute, and if the columns are not
    those with the hash ``sha256`` (empty: not compared).
    """
    if not path:
        raise ConfigError(
            "the adapter's basis is missing: name a file of python -m megasynth_train.mine, e.g. "
            "adapter.basis=runs/subspaces/all.safetensors"
        )
    basis = read_basis(path)
    chosen = basis.select(attributes) if attributes else basis
    if sha256 and chosen.sha256 != sha256:
        raise ConfigError(
            f"{path} is another basis than the one this adapter was trained in: the columns of "
            f"{', '.join(chosen.attributes)} have the SHA-256 {chosen.sha256[:12]}, expected {sha256[:12]}; an adapter "
            "is meaningless in other directions: give the file it was trained with"
        )
    return chosen


def open_for_model(
    settings: AdapterSettings, model: nn.Module, weights_sha256: str
) -> tuple[Basis | None, tuple[str, ...]]:
    """Return the basis of mode=subspace for an unadapted model with this hash (else None), and a note if any.

    Raises as ``open_basis`` and ``check_model``.
    """
    if settings.mode != MODE:
        return None, ()
    basis = open_basis(settings.basis, settings.attributes)
    note = check_model(basis, model, weights_sha256, settings.basis)
    return basis, (note,) if note else ()


def identity(settings: AdapterSettings) -> dict[str, str]:
    """Return what decides a run's result besides its settings: the columns' hash; empty for other modes."""
    return {IDENTITY: open_basis(settings.basis, settings.attributes).sha256} if settings.mode == MODE else {}


def check_model(basis: Basis, model: nn.Module, weights_sha256: str, path: str) -> str:
    """Return a note if the weights of ``model`` are rounded, so that nothing can be compared, else an empty one.

    ``weights_sha256`` is the model's own hash, taken before it was adapted. Raises as ``check_base``.
    """
    note = rounding_note(model, str(basis.base.get("weights_sha256") or ""), weights_sha256)
    if note:
        return f"{path}: {note}"
    check_base(basis, weights_sha256, path)
    return ""


def check_base(basis: Basis, weights_sha256: str, path: str) -> None:
    """Raise ConfigError if ``basis`` records that it belongs to a model with other weights.

    An imported basis may not record this; then only names and shapes can be compared.
    """
    recorded = basis.base.get("weights_sha256")
    if recorded and recorded != weights_sha256:
        size = basis.base.get("size") or "a model"
        raise ConfigError(
            f"{path} was mined from adapters of {size} with weights {recorded[:12]}, but this model's weights are "
            f"{weights_sha256[:12]}; use the base model of its cluster (model.size, model.checkpoint), or mine a basis "
            "for this one"
        )


def attach_basis(config: SubspaceConfig, basis: str, folder: Path) -> Basis:
    """Give the stored configuration in ``folder`` its basis, from the file ``basis`` or its path in training.

    Returns the basis. Raises DatasetError if it is no longer there, else as ``open_basis``.
    """
    if not basis and not Path(config.basis).is_file():
        raise DatasetError(
            f"the basis of {folder} is no longer at {config.basis}; say where it is with basis=FILE (it is not stored "
            "in the adapter's folder)"
        )
    config.basis = basis or config.basis
    config.opened = open_basis(config.basis, config.attributes or (), config.basis_sha256)
    return config.opened


def check_layers(basis: Basis, model: nn.Module) -> None:
    """Raise ConfigError naming the first layer of ``basis`` that ``model`` lacks or has of another kind or shape."""
    modules = dict(model.named_modules())
    for name, layer in basis.layers.items():
        if name not in modules:
            raise ConfigError(f"the basis has directions for {name}, which this model lacks: it is for another model")
        module = modules[name]
        if isinstance(module, BaseTunerLayer) and not isinstance(module, SubspaceLinear):
            raise ConfigError(f"{name} already has an adapter of another method; load a fresh copy of the base model")
        base = module.get_base_layer() if isinstance(module, SubspaceLinear) else module
        if type(base) is not nn.Linear:
            raise ConfigError(f"the basis has directions for {name}, which is a {type(base).__name__}, not a Linear")
        shape, expected = tuple(base.weight.shape), (len(layer.left), len(layer.right))
        if shape != expected:
            raise ConfigError(
                f"the basis is for a layer {name} of {expected[0]} outputs and {expected[1]} inputs, here it has "
                f"{shape[0]} and {shape[1]}: it is for another model"
            )


def check_options(basis: Basis, config: SubspaceConfig) -> None:
    """Raise ConfigError if an option needs what the basis does not hold."""
    for name, layer in basis.layers.items():
        if config.m_init == "mean" and layer.mean is None:
            raise ConfigError(f"m_init=mean: the basis {config.basis} holds no mean of {name}; use m_init=zeros")
        if config.basis_norm == "sqrt_sigma" and not (layer.scales > 0).all():
            raise ConfigError(
                f"basis_norm=sqrt_sigma: {name} has a direction of singular value 0, which could not be trained; use "
                "basis_norm=orthonormal"
            )
