"""The page: points, cameras and pictures of one or two scenes in one file that works offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from megasynth_attr.core.pages.clouds import PackedCloud, ball, camera_axes, overview, pack_cloud, view_of_camera
from megasynth_attr.core.pages.template import render, require_report_libraries
from megasynth_attr.core.pages.words import count_text, in_words
from megasynth_attr.dataset.view.scene import ShownScene

TEMPLATES = Path(__file__).parent / "templates"
FRUSTUM = 0.1  # length of a drawn camera, relative to the radius of what there is to see
WEBP_QUALITY = 80
DEPTH_POINTS = 20_000  # enough of a cloud to say how far away what a camera looks at is


def require_libraries() -> None:
    """Raise EnvironmentProblem if the library that fills in pages is missing."""
    require_report_libraries("jinja2", what="the page")


def page_of(dataset: str, scenes: Sequence[ShownScene]) -> bytes:
    """Return the page, UTF-8, of one or two ``scenes`` of the dataset of this name."""
    packed = [pack_cloud(scene.cloud, len(scene.cloud.points)) for scene in scenes]
    axes = [camera_axes(scene.camera_from_world) for scene in scenes]
    points = np.concatenate([cloud.points() for cloud in packed])
    centre, radius = ball(points, np.concatenate(axes)[:, 0])
    page = render(
        TEMPLATES,
        "view.html",
        dataset=dataset,
        scenes=scenes,
        captions=[_caption(*pair) for pair in zip(scenes, packed, strict=True)],
        difference=difference_text(*scenes) if len(scenes) == 2 else "",
        records={
            "radius": radius,
            "length": FRUSTUM * radius,
            "overview": asdict(overview(centre, radius)),
            "scenes": [_record(*one, radius) for one in zip(scenes, packed, axes, strict=True)],
        },
        points=[cloud.base64() for cloud in packed],
        pictures=[[_webp(picture) for picture in scene.pictures] for scene in scenes],
    )
    return page.encode()


def difference_text(a: ShownScene, b: ShownScene) -> str:
    """Return in which factors two scenes differ and in which they are equal, as a sentence."""
    names = [*sorted((a.hashes.keys() | b.hashes.keys()) - {"noise"}), "noise"]  # the renderer's seed comes last
    differing = [name for name in names if a.hashes.get(name) != b.hashes.get(name)]
    equal = [name for name in names if name not in differing]
    parts = [f"They differ in {in_words(differing)}"] if differing else []
    parts += [f"{in_words(equal)} {'is' if len(equal) == 1 else 'are'} equal to the bit"] if equal else []
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _record(scene: ShownScene, cloud: PackedCloud, axes: np.ndarray, radius: float) -> dict[str, Any]:
    """Return what the page's script needs of a scene besides points and pictures, as plain values."""
    focal_px, size = scene.intrinsics[0, 0], (scene.width_px, scene.height_px)
    some, focal = cloud.points()[:DEPTH_POINTS], focal_px / min(size)
    return {
        "name": scene.name,
        "frames": scene.frames,
        "cloud": cloud.record(),
        "cameras": np.round(axes, 6).reshape(-1, 12).tolist(),
        "shape": [0.5 * side / focal_px for side in size],
        "views": [asdict(view_of_camera(one, some, radius, focal)) for one in axes],
    }


def _caption(scene: ShownScene, cloud: PackedCloud) -> str:
    frames = count_text(len(scene.frames), "frame")
    if len(scene.frames) < scene.all_frames:
        frames = f"{len(scene.frames)} of {count_text(scene.all_frames, 'frame')}"
    texts = [f"{frames}, {scene.width_px} × {scene.height_px} px, field of view {scene.fov_x_deg:.1f}°."]
    texts.append(cloud.count_text() if cloud.count else "There are no points: no frame sees a surface.")
    return " ".join([*texts, *cloud.left_out_texts()])


def _webp(picture: Image.Image) -> str:
    """Return a picture as WebP in base64, a third smaller than JPEG and with its alpha."""
    content = io.BytesIO()
    picture.save(content, format="WEBP", quality=WEBP_QUALITY)
    return base64.b64encode(content.getvalue()).decode("ascii")
