"""A factor that changes nothing and, where the environment says so, makes the worker misbehave while it builds.

``MISCHIEF="1=hang 2=crash 3=raise"`` hangs in scene 1, has a segmentation fault in scene 2 and raises an exception in
scene 3. Used as ``plugins=[tests/farm/mischief.py] mischief.on=true``: the failures happen in a real worker, in a
real scene.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from megasynth_attr.core.fields import scope, setting, variants
from megasynth_attr.core.streams import Scope
from megasynth_attr.scene.factor import Draw, Factor


@dataclass(frozen=True)
class MischiefSettings:
    scope: str = scope(Scope.EXPERIMENT)
    variants: int = variants()
    on: bool = setting(False, "a factor with nothing but defaults would be off")


@dataclass(frozen=True)
class Mischief:
    nothing: int


def sample(rng: np.random.Generator, settings: MischiefSettings, draw: Draw) -> Mischief:
    return Mischief(0)


def build(stage: Any, data: Mischief) -> None:
    wanted = dict(item.split("=") for item in os.environ.get("MISCHIEF", "").split())
    kind = wanted.get(str(stage.scene.scene_index))
    if kind is None:
        return
    print(f"about to {kind}")
    if kind == "hang":
        time.sleep(1000)
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    raise RuntimeError("mischief was asked for")


FACTOR = Factor(
    name="mischief",
    order=90,
    settings=MischiefSettings,
    data=Mischief,
    sample=sample,
    build=build,
    changes_depth=False,
    describe=lambda data, records: np.zeros(1),
    distance=lambda a, b: 0.0,
)
