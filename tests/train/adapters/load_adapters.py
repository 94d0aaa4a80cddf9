"""Run as a program: loads adapters into fresh base models in a process of its own and stores what they predict.

Arguments: a folder with one adapter folder per mode, and the file for the predictions (``<mode>.<output>``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from adapter_models import MODES, outputs, small_model
from peft import PeftModel
from safetensors.torch import save_file

from megasynth_train.adapters import load_adapter

STOCK = ("lora", "rslora", "dora", "heads")  # one adapter, no changed base weights: PEFT alone can load these


def main(folder: Path, file: Path) -> None:
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
