"""Turns a finished run of mode=full into weights small enough to ship: half precision, without optimiser state.

python tools/ship_weights.py runs/pretrain_tiny/training/pretrain assets/models/vggt-tiny.safetensors
"""

import sys
from pathlib import Path

from megasynth_train.vggt.checkpoint import load_pretrained, save_model
from megasynth_train.vggt.config import named_config


def main(run: Path, target: Path) -> None:
    """Write the last weights of the run folder ``run`` as float16 to ``target`` (loading makes them float32 again)."""
    config = named_config("vggt-tiny", point_head=False)
    save_model(load_pretrained(str(run / "adapter" / "model.safetensors"), config).model.half(), target)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
