"""What checkpoint= may name: a file, a folder, a hub id or a model that comes with the project. Free of PyTorch."""

from __future__ import annotations

import re
from pathlib import Path

from megasynth_attr.core.errors import DatasetError

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")  # the names of PEFT's files
ADAPTER_SHARD = re.compile(r"adapter_model-(\d+)-of-(\d+)\.(?:safetensors|bin)")
# keys of the released code's patched PEFT in adapter_config.json
PATCHED_OPTIONS = ("apply_svd_lora", "pattern_svd_lora", "use_predefined_space")
SHIPPED = "shipped:"  # before the name of a file in assets/models
_WRAPPERS = re.compile(r"(?<=base_model\.model\.)(module\.)+|_orig_mod\.")  # of DistributedDataParallel, torch.compile
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def hub_id(source: str) -> tuple[str, str | None]:
    """Return repository and revision of a hub id; DatasetError for anything else."""
    found = _HUB_ID.fullmatch(source)
    if found is None or source.endswith(_SUFFIXES):
        raise DatasetError(
            f"checkpoint {source} is neither a file, nor a folder, nor a hub id such as facebook/VGGT-1B"
        )
    return found["repo"], found["revision"]


def unwrapped(name: str) -> str:
    """Return the name of a tensor in PEFT's files as it is where the model was not wrapped when it was saved."""
    return _WRAPPERS.sub("", name)


def check_source(source: str) -> None:
    """Raise DatasetError unless ``source`` is an existing file or folder, or has the form of another source."""
    if not source.startswith(SHIPPED) and not Path(source).exists():
        hub_id(source)
