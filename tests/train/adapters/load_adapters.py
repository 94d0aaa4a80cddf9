"""For a process of its own: loads adapters into fresh base models and stores what they predict."""

from __future__ import annotations

from pathlib import Path

import torch
from adapter_models import MODES, outputs, small_model
from peft import PeftModel
from safetensors.torch import save_file

from megasynth_train.adapters import load_adapter

STOCK = ("lora", "rslora", "dora", "heads")  # one adapter, no changed base weights: PEFT alone can load these


def main(folder: Path, file: Path, threads: int) -> None:
    """Write the predictions, ``<mode>.<output>``, of the adapters in ``folder``, one per mode, into ``file``."""
    torch.set_num_threads(threads)
    torch.manual_seed(99)  # nothing may depend on the global state
    found = {}
    for mode in MODES:
        loaded = load_adapter(small_model(), folder / mode)
        found |= {f"{mode}.{name}": tensor for name, tensor in outputs(loaded.model).items()}
    for mode in STOCK:
        model = small_model()
        PeftModel.from_pretrained(model, folder / mode)
        found |= {f"stock-{mode}.{name}": tensor for name, tensor in outputs(model).items()}
    save_file(found, file)
