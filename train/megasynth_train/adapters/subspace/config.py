"""PEFT's configuration of an adapter in a basis."""

from __future__ import annotations

from dataclasses import dataclass

from peft import LoraConfig

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import check
from megasynth_train.subspace.basis import Basis
from megasynth_train.training.settings import AdapterSettings

PEFT_TYPE = "SUBSPACE"


@dataclass
class SubspaceConfig(LoraConfig):
    """dW = scale · A M Bᵀ in the layers of ``basis``, plain LoRA (``r``, ``lora_alpha``) in other ``target_modules``.

    ``target_modules`` None means the layers of the basis and no others. The other keys are those of AdapterSettings.
    ConfigError for unknown values.
    """

    basis: str = ""  # file of the basis; made absolute when the adapter is made
    attributes: list[str] | None = None  # use these attributes' columns; None: all
    mask: str = "full"
    basis_norm: str = "orthonormal"
    m_init: str = "zeros"
    scale: float = 2.0  # the paper's alpha / r is 2
    basis_sha256: str = ""  # hash of the columns used; recorded when the adapter is made, then compared

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        self.attributes = list(self.attributes) if self.attributes else None
        # The columns to use, chosen and checked, in place of the file's; set while layers are made.
        self.opened: Basis | None = None  # not a field, so it is not saved
        options = {key: getattr(self, key) for key in ("mask", "basis_norm", "m_init", "scale")}
        check(AdapterSettings(**options), "")
        if self.use_dora or self.lora_bias:
            raise ConfigError(
                "use_dora and lora_bias cannot be combined with an adapter in a basis (dW = scale · A M Bᵀ)"
            )
