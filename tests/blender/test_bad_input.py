"""What is missing or cannot be used gives one clear error of the right kind, and records say what rendered."""

from __future__ import annotations

import pytest
from blender_runtime import Outcome

MESSAGES = {
    "no_material": ("DatasetError", "material grey", "texture.bank"),
    "no_map": ("DatasetError", "no normal map"),
    "missing_map": ("DatasetError", "roughness map of grey", "nowhere.png"),
    "damaged_map": ("DatasetError", "basecolor map of grey", "cut.png is damaged"),
    "no_picture": ("DatasetError", "picture white.png", "texture.pictures"),
    "missing_picture": ("DatasetError", "nowhere.png"),
    "other_picture": ("DatasetError", "SHA-256"),
    "damaged_picture": ("DatasetError", "cannot be read", "cut.png"),
    "unreadable_picture": ("DatasetError", "cannot read", "fake.exr"),
    "missing_sky": ("DatasetError", "x.exr"),
    "unreadable_sky": ("DatasetError", "cannot read", "fake.exr"),
    "device_metal": ("EnvironmentProblem", "METAL", "device=cpu"),
    "denoised_on_gpu": ("EnvironmentProblem", "no GPU", "render.denoiser_device=cpu"),
    "dark": ("RenderError", "frame 0", "same linear colour"),
    "looks_away": ("RenderError", "frame 0", "no surface"),
}


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_the_error_says_what_where_and_what_to_do(outcome: Outcome, name: str) -> None:
    kind, *parts = MESSAGES[name]
    found_kind, message = outcome.error(name)
    assert found_kind == kind
    for part in parts:
        assert part in message


@pytest.mark.parametrize("device", ["cuda", "optix", "hip", "oneapi"])
def test_a_gpu_that_is_not_there_is_an_error(outcome: Outcome, device: str) -> None:
    """Blender itself would accept the setting and render on the CPU. Where the machine has one, the job must render."""
    if "error" not in outcome.results["jobs"][f"device_{device}"]:
        assert outcome.results["jobs"][f"device_{device}"]["record"]["device"] == device
        return
    kind, message = outcome.error(f"device_{device}")
    assert kind == "EnvironmentProblem" and device.upper() in message and "device=cpu" in message


def test_a_demanded_denoiser_is_never_replaced(outcome: Outcome) -> None:
    has_denoiser = outcome.results["jobs"]["default_quality"]["record"]["denoiser"] == "oidn"
    if has_denoiser:
        assert outcome.results["jobs"]["oidn_demanded"]["record"]["denoiser"] == "oidn"
        assert "NO DENOISER" not in outcome.stderr
    else:
        kind, message = outcome.error("oidn_demanded")
        assert kind == "EnvironmentProblem" and "OpenImageDenoise" in message
        assert outcome.stderr.count("NO DENOISER") == 1, "said once, aloud"


def test_the_record_says_what_rendered(outcome: Outcome) -> None:
    record = outcome.results["jobs"]["reference_quality"]["record"]
    assert record["blender"] == outcome.results["version"]
    assert (record["quality"], record["device"]) == ("reference", "cpu")
    assert record["sampling"]["samples"] == 64
    assert record["render"]["width_px"] == 56
    assert (record["render"]["texture_filter"], record["render"]["denoiser_device"]) == ("linear", "cpu")
    if record["denoiser"] == "oidn":
        assert record["sampling"]["prefilter"] == "ACCURATE"
    assert outcome.results["jobs"]["box"]["record"]["denoiser"] == "none"
    assert outcome.results["jobs"]["box"]["record"]["sampling"]["samples"] == 1
