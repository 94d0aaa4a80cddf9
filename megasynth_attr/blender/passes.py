"""From the float image that Cycles made to arrays in our conventions, and checks that it is a usable picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megasynth_attr.blender import compat
from megasynth_attr.core.exr import ExrError, decode_exr, text_attributes

BACKGROUND_DEPTH = 1e9  # Cycles writes 1e10 where a ray hits nothing


@dataclass(frozen=True)
class Passes:
    """What Cycles rendered; H×W arrays, row 0 at the top. Ids, positions and normals are None where not asked for."""

    combined: np.ndarray  # float32 H×W×4, linear Rec.709, premultiplied alpha
    depth_z: np.ndarray  # float32, 0 = background
    instance: np.ndarray | None  # uint16, 0 = background
    position: np.ndarray | None  # float32 H×W×3, 0 = background
    cycles_s: float  # what Cycles says it took, rounded to 10 ms by Cycles
    normal: np.ndarray | None = None  # float32 H×W×3, as materials wrote them: exact in a rendering of one sample only


def read_passes(data: bytes, layer: str, *, instance: bool, position: bool, normal_aov: str | None) -> Passes:
    """Return the passes of a multilayer EXR file; ExrError (a ValueError) if it does not hold them.

    ``normal_aov`` is the name of the custom output that holds normals, None where there is none.
    """
    channels = _Channels(decode_exr(data))
    depth = channels[f"{layer}.Depth.Z"]
    hit = is_hit(depth)
    ids = channels[compat.object_index_channel(layer, channels)] if instance else None
    return Passes(
        combined=_stack(channels, f"{layer}.Combined", "RGBA"),
        depth_z=np.where(hit, depth, np.float32(0)),
        instance=np.where(hit, np.round(ids), 0).astype(np.uint16) if ids is not None else None,
        position=_stack(channels, f"{layer}.Position", "XYZ") * hit[..., None] if position else None,
        normal=_stack(channels, f"{layer}.{normal_aov}", "RGB") if normal_aov is not None else None,
        cycles_s=_cycles_seconds(text_attributes(data)),
    )


class _Channels(dict[str, np.ndarray]):
    """Channels by name; a missing one is an error that names it."""

    def __missing__(self, name: str) -> np.ndarray:
        raise ExrError(f"Blender wrote no channel {name}, only {', '.join(sorted(self))}")


def is_hit(depth: np.ndarray) -> np.ndarray:
    """Return where a raw depth map shows a surface."""
    return np.isfinite(depth) & (depth > 0) & (depth < BACKGROUND_DEPTH)


def _stack(channels: dict[str, np.ndarray], name: str, letters: str) -> np.ndarray:
    return np.stack([channels[f"{name}.{letter}"] for letter in letters], axis=-1)


def _cycles_seconds(texts: dict[str, str]) -> float:
    """Return the sum over the view layers of what Cycles recorded as its total time, e.g. "00:01.87"."""
    times = [value for name, value in texts.items() if name.startswith("cycles.") and name.endswith(".total_time")]
    return sum(float(part) * 60**power for time in times for power, part in enumerate(reversed(time.split(":"))))


def facing_normals(normal: np.ndarray, hit: np.ndarray, towards_camera: np.ndarray) -> np.ndarray:
    """Return unit normals H×W×3 float32 that face the camera; 0 where nothing is hit.

    ``towards_camera`` (H×W×3, unit) points to the camera. Near a silhouette an interpolated normal may lean away from
    it and is turned until it is perpendicular to the ray.
    """
    cosine = np.einsum("hwc,hwc->hw", normal, towards_camera)
    leaning = np.minimum(cosine, 0)[..., None]
    turned = normal - leaning * towards_camera
    length = np.linalg.norm(turned, axis=-1, keepdims=True)
    unit = np.where(
        length > 1e-6, turned / np.maximum(length, 1e-6), towards_camera
    )  # no length is left if it pointed away
    return np.where(hit[..., None], unit, 0).astype(np.float32)


def picture_problem(passes: Passes) -> str | None:
    """Return what is wrong with a rendering, or None: Blender reports success after many faults."""
    if not np.isfinite(passes.combined).all():
        count = int((~np.isfinite(passes.combined).all(axis=-1)).sum())
        return f"{count} pixels are not finite numbers"
    hit = passes.depth_z > 0
    if not hit.any():
        return "no surface is in view: every ray misses"
    colours = passes.combined[hit][:, :3]
    if hit.sum() > 1 and np.all(colours == colours[0]):
        colour = colours[0].round(4).tolist()
        return f"all {int(hit.sum())} surface pixels have the same linear colour {colour}; is a light missing?"
    return None
