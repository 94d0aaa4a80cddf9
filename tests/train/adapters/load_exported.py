"""Run as a program: loads an exported adapter with PEFT alone, the training half out of reach.

Arguments: the exported folder, the file for the result. Nothing of this project may be imported.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any


class Refuse(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in ("megasynth_train", "megasynth_attr"):
            raise ImportError(f"{name} must not be needed")


if __name__ == "__main__":
    sys.meta_path.insert(0, Refuse())
    from peft import PeftModel
    from safetensors.torch import save_file
    from subspace_toys import inputs, toy

    model = PeftModel.from_pretrained(toy(), sys.argv[1])
    save_file({"found": model(inputs()).detach().contiguous()}, sys.argv[2])
