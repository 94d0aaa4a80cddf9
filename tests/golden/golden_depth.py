"""What is rendered for every attribute: the contents of depth.json. Shared by the test and the recorder.

Depth, normals, instances and cameras are compared to the byte; colours depend on the processor and are left out.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import golden_files

from megasynth_attr.dataset.reader import open_dataset

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
WORDS = (
    f"preset={FOLDER / 'depth.yaml'}",
    "stages=generate",
    "datasets=0",
    "scenes=0",
    "frames=1",
    "quality=draft",
    "render.width_px=28",
    "render.height_px=28",
    "texture.bank_size_px=16",
    "write.normal=true",
    "write.instance=true",
)
OF_PROCESSOR = ("depth/0000.exr", "depth, decoded", "normal/0000.exr")  # Cycles has a kernel for each kind
FILES = ("scene.json", "cameras.json", "depth/0000.exr", "normal/0000.exr", "instance/0000.png")


def record() -> dict[str, Any]:
    """Return what today's program renders."""
    with tempfile.TemporaryDirectory() as folder:
        return {"machine": golden_files.machine(), "members": rendered(Path(folder) / "out")}


def rendered(out: Path) -> dict[str, Any]:
    """Render one frame of every attribute and return the hashes of its files and arrays, by attribute."""
    packages = [str(ROOT), *(entry for entry in sys.path if entry.endswith("site-packages"))]
    done = subprocess.run(
        [sys.executable, "-m", "megasynth_attr.pipeline", *WORDS, f"out={out}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(packages), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.parent.name.removesuffix("_00"): _hashes(file.parent) for file in sorted(out.glob("*/dataset.json"))}


def _hashes(dataset: Path) -> dict[str, Any]:
    (scene,) = open_dataset(dataset).scenes
    (view,) = scene.views
    depth = view.depth_z
    (folder,) = dataset.glob("scenes/*/*")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES} | {
        "depth, decoded": hashlib.sha256(depth.tobytes()).hexdigest(),
        "depth, type and shape": [depth.dtype.name, *depth.shape],
        "depth, mean": round(float(depth.mean()), 4),  # tells a last bit from another scene
        "depth, largest": round(float(depth.max()), 4),
    }
