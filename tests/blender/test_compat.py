"""What is said of a Blender, or a GPU, that nobody here has: a version of our own making stands for it."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from megasynth_attr.blender import compat
from megasynth_attr.blender.device import set_denoiser_device
from megasynth_attr.core.errors import EnvironmentProblem


def blender(version: tuple[int, int, int], **preferences: Any) -> Any:
    """Return a module bpy of this version, with these preferences of Cycles."""
    module: Any = ModuleType("bpy")
    module.app = SimpleNamespace(version=version, version_string=".".join(map(str, version)))
    cycles = SimpleNamespace(preferences=SimpleNamespace(**preferences))
    module.context = SimpleNamespace(preferences=SimpleNamespace(addons={"cycles": cycles}))
    return module


@pytest.mark.parametrize(("version", "warned"), [((3, 4, 0), 0), ((5, 2, 99), 0), ((5, 3, 0), 1), ((6, 0, 0), 1)])
def test_a_minor_version_above_the_newest_tested_is_warned_of(
    version: tuple[int, int, int], warned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bpy", blender(version))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert compat.blender_version() == ".".join(map(str, version))
    assert [one.category for one in caught] == [compat.BlenderWarning] * warned
    assert all("is newer than the newest tested one (5.2)" in str(one.message) for one in caught)


def test_one_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bpy", blender((3, 3, 21)))
    with pytest.raises(EnvironmentProblem, match=r"Blender 3\.3\.21 is too old; 3\.4 to 5\.2 are supported"):
        compat.load_bpy()


@pytest.mark.parametrize("preferences", [{}, {"has_oidn_gpu_devices": lambda: False}], ids=["silent", "unable"])
def test_a_gpu_that_does_not_denoise_is_refused(preferences: dict[str, Any]) -> None:
    """Blender would accept it and denoise on the CPU."""
    cycles = SimpleNamespace(device="GPU", denoising_use_gpu=False)
    with pytest.raises(EnvironmentProblem, match=r"render\.denoiser_device=gpu: there is no GPU that Blender 5\.2\.3"):
        set_denoiser_device(blender((5, 2, 3), **preferences), cycles, "gpu")
    assert not cycles.denoising_use_gpu


def test_the_device_of_the_denoiser_is_always_set() -> None:
    bpy = blender((5, 2, 3), has_oidn_gpu_devices=lambda: True)
    cycles = SimpleNamespace(device="GPU", denoising_use_gpu=False)
    for where in ("gpu", "cpu"):
        set_denoiser_device(bpy, cycles, where)
        assert cycles.denoising_use_gpu == (where == "gpu")
    with pytest.raises(EnvironmentProblem):
        set_denoiser_device(bpy, SimpleNamespace(device="CPU"), "gpu")
