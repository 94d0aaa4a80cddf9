"""The PEFT tuner: LoRA's, with our layer in place of its linear one, known to PEFT like its own methods."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NoReturn, cast

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from torch import Tensor, nn

from megasynth_attr.core.errors import ConfigError
from megasynth_train.adapters.subspace.config import PEFT_TYPE, SubspaceConfig
from megasynth_train.adapters.subspace.layer import SubspaceLinear
from megasynth_train.adapters.subspace.opening import check_layers, check_model, check_options, open_basis
from megasynth_train.adapters.targets import exact_pattern
from megasynth_train.subspace.basis import Basis
from megasynth_train.vggt.checkpoint import weights_hash


class SubspaceModel(LoraModel):
    """Puts adapters in a basis into a model; everything is checked before the model is touched."""

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """Add the adapter; ConfigError or DatasetError, and no change, if its basis is missing or does not fit."""
        config = cast(SubspaceConfig, self.peft_config[adapter_name])
        if config.basis:  # to be found from any working directory
            config.basis = str(Path(config.basis).resolve())
        basis = config.opened or _opened(config, model)
        check_layers(basis, model)
        check_options(basis, config)
        if not config.basis_sha256 and not any(weight.is_meta for weight in model.parameters()):
            config.basis_sha256 = basis.sha256
        if config.target_modules is None:
            config.target_modules = exact_pattern(list(basis.layers))
        config.opened = basis
        try:
            super().inject_adapter(model, adapter_name, autocast_adapter_dtype, low_cpu_mem_usage, state_dict)
        finally:
            config.opened = None

    @staticmethod
    def _create_new_module(
        lora_config: SubspaceConfig, adapter_name: str, target: nn.Module, **kwargs: Any
    ) -> nn.Module:
        # plain linears get our layer even if this basis lacks them: another adapter's basis may have them
        if type(target) is nn.Linear:
            return SubspaceLinear(target, adapter_name, config=lora_config, **kwargs)
        module: nn.Module = LoraModel._create_new_module(lora_config, adapter_name, target, **kwargs)
        return module

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise ConfigError: PEFT would combine the frozen A and B, which does not add the adapters up."""
        raise ConfigError(
            "add_weighted_adapter cannot combine adapters in a basis; export them to plain LoRA (python -m "
            "megasynth_train.export_lora) and combine those, or, if they share a basis, add up their M"
        )


def _opened(config: SubspaceConfig, model: nn.Module) -> Basis:
    """Return the basis that the configuration names, checked against the base model's weights; warn of unused layers.

    With another adapter in the model its hash no longer is the base's: then only names and shapes are checked.
    """
    basis = open_basis(config.basis, config.attributes or (), config.basis_sha256)
    adapted = any(isinstance(module, BaseTunerLayer) for module in model.modules())
    if not adapted and (note := check_model(basis, model, weights_hash(model), config.basis)):
        warnings.warn(note, stacklevel=2)
    if config.target_modules is not None:
        unused = [name for name in basis.layers if not check_target_module_exists(config, name)]
        if unused:
            warnings.warn(
                f"target_modules leaves {len(unused)} of the {len(basis.layers)} layers of the basis unadapted, the "
                f"first is {unused[0]}",
                stacklevel=2,
            )
    return basis


def register() -> None:
    """Add the method to PEFT's tables; doing it again changes nothing. RuntimeError if the name is taken.

    PEFT's ``register_peft_method`` accepts only names of its own enumeration; these are the tables behind it.
    """
    entries: tuple[tuple[dict[Any, Any], Any], ...] = (
        (PEFT_TYPE_TO_CONFIG_MAPPING, SubspaceConfig),
        (PEFT_TYPE_TO_TUNER_MAPPING, SubspaceModel),
        (PEFT_TYPE_TO_PREFIX_MAPPING, SubspaceModel.prefix),
    )
    for table, own in entries:
        if (there := table.get(PEFT_TYPE, own)) is not own:
            raise RuntimeError(f"PEFT already knows another method named {PEFT_TYPE}: {there!r}; uninstall one of them")
    for table, own in entries:
        table[PEFT_TYPE] = own
