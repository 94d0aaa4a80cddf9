"""The Cycles device, chosen explicitly and checked: Blender accepts a GPU that is not there and renders on the CPU."""

from __future__ import annotations

from typing import Any

from megasynth_attr.blender import compat
from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.threads import available_cores

GPU_KINDS = {"cuda": "CUDA", "optix": "OPTIX", "hip": "HIP", "oneapi": "ONEAPI", "metal": "METAL"}


def use_device(bpy: Any, scene: Any, device: str, threads: int) -> None:
    """Make ``scene`` render on ``device``: "cpu", or a key of GPU_KINDS for all GPUs of that kind.

    ``threads`` CPU threads; 0: as many as this process may use. EnvironmentProblem if there is no such device.
    """
    scene.render.threads_mode = "FIXED"
    scene.render.threads = threads or available_cores()
    preferences = cycles_preferences(bpy)
    if device == "cpu":
        preferences.compute_device_type = "NONE"
        scene.cycles.device = "CPU"
        return
    kind = GPU_KINDS[device]
    devices = compat.gpu_devices(preferences, kind)
    if not devices:
        raise EnvironmentProblem(
            f"device={device}: Blender {bpy.app.version_string} finds no {kind} device on this machine; check the "
            "driver and that the device is visible to this process, or use device=cpu"
        )
    preferences.compute_device_type = kind
    for entry in preferences.devices:
        entry.use = entry.type == kind
    scene.cycles.device = "GPU"
    if preferences.compute_device_type != kind or not any(d.use for d in preferences.devices if d.type == kind):
        raise EnvironmentProblem(f"device={device}: Blender {bpy.app.version_string} did not accept it; use device=cpu")


def set_denoiser_device(bpy: Any, cycles: Any, where: str) -> None:
    """Make a scene whose device is set denoise on the "cpu" or on its "gpu"; EnvironmentProblem if it has none.

    Blender accepts a GPU that its denoiser cannot use and denoises on the CPU.
    """
    if where == "gpu" and not (cycles.device == "GPU" and compat.denoises_on_gpu(cycles_preferences(bpy))):
        raise EnvironmentProblem(
            f"render.denoiser_device=gpu: there is no GPU that Blender {bpy.app.version_string} denoises on; choose "
            "one with device= (or a newer Blender), or use render.denoiser_device=cpu"
        )
    compat.set_if_present(cycles, denoising_use_gpu=where == "gpu")


def cycles_preferences(bpy: Any) -> Any:
    """Return the preferences of the Cycles add-on; EnvironmentProblem if this Blender comes without it."""
    addon = bpy.context.preferences.addons.get("cycles")
    if addon is None or addon.preferences is None:
        raise EnvironmentProblem(
            f"Blender {bpy.app.version_string} runs without the Cycles add-on; enable it, or use --factory-startup"
        )
    return addon.preferences
