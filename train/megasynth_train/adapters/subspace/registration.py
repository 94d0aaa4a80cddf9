"""Making the method known to PEFT, so that its configurations load and save like those of PEFT's own methods.

PEFT's ``register_peft_method`` takes names of its own enumeration only; these are the tables behind it.
"""

from __future__ import annotations

from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from megasynth_train.adapters.subspace.config import PEFT_TYPE, SubspaceConfig
from megasynth_train.adapters.subspace.model import SubspaceModel


def register() -> None:
    """Enter the method in PEFT's tables; doing it again changes nothing. RuntimeError if the name is taken."""
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
