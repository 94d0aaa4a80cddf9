"""Starting the Blenders under test: bpy modules in processes of their own, and a Blender binary."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.codec import to_plain
from megasynth_attr.scene.settings import RenderSettings, WriteSettings
from megasynth_attr.scene.spec import Assets, Scene, scene_to_json

INSIDE = Path(__file__).with_name("inside_blender.py")
RUNTIMES = ["module", "newest", "binary"]
CHECKOUT = Path(__file__).resolve().parents[2]
NEWEST = CHECKOUT / ".venv-3.13" / "bin" / "python"  # made by tools/setup.sh where there is a Python 3.13


def job(
    name: str,
    scene: Scene,
    assets: Assets,
    size: tuple[int, int] = (140, 98),
    *,
    samples: int = 1,
    denoiser: str = "none",
    layers: str = "",
    quality: str = "draft",
    device: str = "cpu",
    threads: int = 2,
    builds: int = 1,
    whole_picture: bool = False,
    project: list[list[float]] | None = None,
    plugins: list[str] | None = None,
    **render: Any,
) -> dict[str, Any]:
    """Return a job for inside_blender.py; ``layers`` names what to write besides colour and depth."""
    settings = RenderSettings(width_px=size[0], height_px=size[1], samples=samples, denoiser=denoiser, **render)
    write = WriteSettings(**dict.fromkeys(layers.split(), True))
    return {
        "name": name,
        "scene": scene_to_json(scene),
        "assets": to_plain(assets),
        "render": to_plain(settings),
        "write": to_plain(write),
        "quality": quality,
        "device": device,
        "threads": threads,
        "builds": builds,
        "whole_picture": whole_picture,
        "project": project,
        "plugins": plugins or [],
    }


@dataclass(frozen=True)
class Outcome:
    """What one Blender process made of its jobs."""

    folder: Path
    results: dict[str, Any]
    stderr: str

    def frame(self, name: str, index: int = 0) -> dict[str, np.ndarray]:
        """Return the arrays of a job's frame; fails with the job's own error if it has none."""
        assert "error" not in self.results["jobs"][name], self.results["jobs"][name]["error"]
        return dict(np.load(self.folder / f"{name}_{index}.npz"))

    def linear(self, name: str, index: int = 0) -> np.ndarray:
        """Return the linear colour of a frame, H×W×3, from its 8-bit values."""
        from analytic_scenes import linear_from_srgb

        return linear_from_srgb(self.frame(name, index)["rgba"][..., :3] / 255)

    def error(self, name: str) -> tuple[str, str]:
        """Return (kind, message) of a job that must have failed."""
        assert "error" in self.results["jobs"][name], f"{name} was expected to fail"
        kind, message = self.results["jobs"][name]["error"]
        return kind, message


@dataclass(frozen=True)
class Runtime:
    """A way to run a script inside Blender."""

    name: str
    command: tuple[str, ...]

    def run(self, jobs: list[dict[str, Any]], folder: Path) -> Outcome:
        """Return what became of ``jobs``, done one after another in one new Blender process."""
        folder.mkdir(parents=True)
        (folder / "jobs.json").write_text(json.dumps(jobs))
        command, env = [*self.command, str(INSIDE), "--", str(folder)], environment()
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, (
            f"{self.name} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        return Outcome(folder, json.loads((folder / "results.json").read_text()), done.stderr)


def environment() -> dict[str, str]:
    """Return the environment of a Blender under test: it finds the packages of this Python as a user's environment."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    return env | {"VIRTUAL_ENV": sys.prefix, "PYTHONUNBUFFERED": "1"}


def find_runtimes() -> dict[str, Runtime | str]:
    """Return the runtimes by name; a text says why one is missing."""
    binary = shutil.which("blender")
    has_module = importlib.util.find_spec("bpy") is not None
    flags = ("-b", "--factory-startup", "--python-exit-code", "1", "-P")
    return {
        "module": Runtime("bpy module", (sys.executable,)) if has_module else "this Python has no module bpy",
        "newest": Runtime("bpy module of Python 3.13", (str(NEWEST),)) if NEWEST.is_file() else f"there is no {NEWEST}",
        "binary": Runtime("Blender binary", (binary, *flags)) if binary else "there is no `blender` on the PATH",
    }
