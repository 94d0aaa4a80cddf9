"""Named sampling qualities, as data, and what they become in this Blender. Measured in docs/sampling.md."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any

from megasynth_attr.blender import compat
from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.machine import INSTALL_BPY
from megasynth_attr.scene.settings import RenderSettings


@dataclass(frozen=True)
class Quality:
    """How closely the converged picture is approached."""

    samples: int  # per pixel, at most
    min_samples: int = 0  # per pixel, before adaptive sampling may stop
    adaptive_threshold: float = 0.0  # noise level at which a pixel stops; 0: every pixel gets all samples
    denoise: bool = True
    prefilter: str = "FAST"  # of the denoiser's guides: "NONE", "FAST" or "ACCURATE"
    guides: str = "RGB_ALBEDO_NORMAL"  # or "RGB", "RGB_ALBEDO"
    light_tree: bool = True  # choose lights by importance (Blender ≥ 3.5)


QUALITIES = {"draft": Quality(8), "default": Quality(32), "reference": Quality(64, prefilter="ACCURATE")}
# Light paths: what the converged picture is. All qualities share them, so that they approach the same picture.
TRANSPORT = {
    "caustics": False,
    "clamp_direct": 0.0,  # radiance; 0: off
    "clamp_indirect": 10.0,
    "filter_glossy": 0.0,
    "transparent_bounces": 8,
}


def resolve_quality(bpy: Any, name: str, render: RenderSettings) -> Quality:
    """Return the numbers of a named quality under these settings, in this Blender.

    ``render.samples`` replaces the number of samples. Without OpenImageDenoise, denoiser "best" becomes none with a
    warning and "oidn" raises EnvironmentProblem.
    """
    quality = QUALITIES[name]
    if render.samples:
        quality = replace(quality, samples=render.samples, min_samples=min(quality.min_samples, render.samples))
    if render.denoiser == "none":
        return replace(quality, denoise=False)
    if compat.has_open_image_denoise(bpy):
        return quality
    version = bpy.app.version_string
    if render.denoiser == "oidn":
        raise EnvironmentProblem(
            f"render.denoiser=oidn: Blender {version} was built without OpenImageDenoise; use blender.org's build or "
            f"the bpy module ({INSTALL_BPY}), or set render.denoiser=best"
        )
    warnings.warn(
        f"Blender {version} HAS NO DENOISER (it was built without OpenImageDenoise): pictures stay noisy; use "
        "blender.org's build or the bpy module, or raise render.samples",
        compat.BlenderWarning,
        stacklevel=1,  # one place, so that Python says it once per process
    )
    return replace(quality, denoise=False)


def apply_quality(scene: Any, quality: Quality, max_bounces: int) -> None:
    """Set every sampling and light-path property of a Blender scene explicitly: the defaults differ by version."""
    cycles = scene.cycles
    cycles.samples = quality.samples
    cycles.time_limit = 0
    cycles.use_adaptive_sampling = quality.adaptive_threshold > 0
    cycles.adaptive_threshold = quality.adaptive_threshold
    cycles.adaptive_min_samples = quality.min_samples
    cycles.use_layer_samples = "USE"
    cycles.sample_offset = 0
    cycles.use_animated_seed = False
    compat.set_sampling_pattern(cycles)
    cycles.scrambling_distance = 1.0
    cycles.auto_scrambling_distance = False
    compat.set_if_present(cycles, use_light_tree=quality.light_tree, use_guiding=False, use_sample_subset=False)
    cycles.light_sampling_threshold = 0.0
    cycles.use_denoising = quality.denoise
    if quality.denoise:
        cycles.denoiser = "OPENIMAGEDENOISE"
        cycles.denoising_prefilter = quality.prefilter
        cycles.denoising_input_passes = quality.guides
        compat.set_if_present(cycles, denoising_quality="HIGH")
    cycles.max_bounces = max_bounces
    cycles.diffuse_bounces = cycles.glossy_bounces = cycles.transmission_bounces = max_bounces
    cycles.volume_bounces = 0
    cycles.transparent_max_bounces = TRANSPORT["transparent_bounces"]
    cycles.caustics_reflective = cycles.caustics_refractive = TRANSPORT["caustics"]
    cycles.sample_clamp_direct = TRANSPORT["clamp_direct"]
    cycles.sample_clamp_indirect = TRANSPORT["clamp_indirect"]
    cycles.blur_glossy = TRANSPORT["filter_glossy"]
    cycles.use_fast_gi = False


def quality_record(quality: Quality, max_bounces: int) -> dict[str, Any]:
    """Return the numbers in plain data, for the record of what rendered a dataset."""
    return asdict(quality) | TRANSPORT | {"max_bounces": max_bounces}
