"""PEFT's configuration of an adapter in a basis."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from peft import LoraConfig

from megasynth_attr.core.errors import ConfigError
from megasynth_train.subspace.basis import Basis

PEFT_TYPE = "SUBSPACE"
MASKS = ("full", "block_diagonal")
NORMS = ("orthonormal", "sqrt_sigma")
STARTS = ("zeros", "mean")


@dataclass
class SubspaceConfig(LoraConfig):
    """dW = scale · A M Bᵀ in the layers of ``basis``, plain LoRA (``r``, ``lora_alpha``) in other ``target_modules``.

    ``target_modules`` None means the layers of the basis and no others. ConfigError for values that do not exist.
    """

    basis: str = field(default="", metadata={"help": "file of the basis; made absolute when the adapter is made"})
    attributes: list[str] | None = field(default=None, metadata={"help": "use these attributes' columns; None: all"})
    mask: str = field(
        default="full", metadata={"help": "full: M is free; block_diagonal: attributes do not mix, M is 0 between them"}
    )
    basis_norm: str = field(
        default="orthonormal",
        metadata={"help": "sqrt_sigma: columns times the root of their singular value, which rescales Adam's steps"},
    )
    m_init: str = field(
        default="zeros",
        metadata={"help": "start of M; mean: what the basis holds of the cluster's mean adapter"},
    )
    scale: float = field(default=2.0, metadata={"help": "the factor s; the paper's alpha / r is 2"})
    basis_sha256: str = field(
        default="", metadata={"help": "hash of the columns used; recorded when the adapter is made, then compared"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        self.attributes = list(self.attributes) if self.attributes else None
        self._opened: Basis | None = None  # no field, so it is not saved: it is there while layers are made
        for key, known in (("mask", MASKS), ("basis_norm", NORMS), ("m_init", STARTS)):
            if getattr(self, key) not in known:
                raise ConfigError(f"{key}={getattr(self, key)} is unknown; use {' or '.join(known)}")
        if not 0 < self.scale < float("inf"):
            raise ConfigError(f"scale={self.scale} must be a positive number")
        if self.use_dora or self.lora_bias:
            raise ConfigError("use_dora and lora_bias do not go with an adapter in a basis: dW = scale · A M Bᵀ")

    @property
    def opened(self) -> Basis | None:
        """Return the basis: what ``attach`` was given, or what is open while layers are made."""
        return self._opened

    def attach(self, basis: Basis | None) -> None:
        """Set the columns to use, already chosen and checked, in place of the file's; None: read the file again."""
        self._opened = basis

    def make_absolute(self) -> None:
        """Let ``basis`` be found from any working directory."""
        if self.basis:
            self.basis = str(Path(self.basis).expanduser().resolve())
