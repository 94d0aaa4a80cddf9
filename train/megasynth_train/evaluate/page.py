"""The point-cloud page: predicted and true points side by side in a browser, in one file that works offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.pages.clouds import (
    Cloud,
    PackedCloud,
    ball,
    camera_axes,
    overview,
    pack_cloud,
    view_of_camera,
)
from megasynth_attr.core.pages.template import render, require_report_libraries
from megasynth_attr.core.pages.words import number_text
from megasynth_attr.core.temporary import replace_atomically

INDEX = "index.html"
TEMPLATES = Path(__file__).parent / "templates"
POINTS_PER_CLOUD = 100_000
POINTS_PER_PAGE = 2_000_000  # shared equally between all clouds


@dataclass(frozen=True)
class PageScene:
    """What the page shows of one scene: clouds already aligned to the ground truth, and its metrics as text.

    Cameras are ``camera_from_world`` [N, 4, 4], OpenCV axes, in the same world; N may be 0 and differ between the two.
    """

    name: str
    predicted: Cloud
    truth: Cloud
    cameras_predicted: np.ndarray
    cameras_truth: np.ndarray
    facts: Mapping[str, str]

    def __post_init__(self) -> None:
        for what in ("cameras_predicted", "cameras_truth"):
            if getattr(self, what).shape[1:] != (4, 4):
                raise ValueError(f"{what} of {self.name} must be [N, 4, 4], got {getattr(self, what).shape}")


@dataclass(frozen=True)
class PageWords:
    """What the page calls its two clouds, and what it says about them; the usual ones are prediction and truth."""

    title: str = "Predicted and true points"
    left: str = "Predicted"
    right: str = "True"
    lead: str = (
        "in the world frame of the ground truth. Both views move together and start at the first true camera, if there "
        "is one."
    )


USUAL = PageWords()


def points_per_cloud(scenes: int) -> int:
    """Return how many points per cloud are embedded in a page of ``scenes`` scenes: about 30 MB in all, or less."""
    return max(1, min(POINTS_PER_CLOUD, POINTS_PER_PAGE // (2 * scenes)))


def write_point_page(out: Path, scenes: Sequence[PageScene], words: PageWords = USUAL) -> Path:
    """Write ``<out>/index.html``, the page of all ``scenes``, whole or not at all; return its path.

    Of a cloud above the limit a random sample is embedded, the same every time; distances are measured to *all* finite
    points of the other cloud. Raises ConfigError without scenes, EnvironmentProblem if jinja2 is missing or writing
    fails.
    """
    require_report_libraries()
    if not scenes:
        raise ConfigError("the point-cloud page needs at least one scene, but none was evaluated")
    limit = points_per_cloud(len(scenes))
    records, data = [], []
    for scene in scenes:
        predicted = pack_cloud(scene.predicted, limit, scene.truth)
        truth = pack_cloud(scene.truth, limit, scene.predicted)
        records.append(_record(scene, predicted, truth, words))
        data.append({"predicted": predicted.base64(), "true": truth.base64()})
    page = render(
        TEMPLATES,
        "points.html",
        scenes=list(zip(scenes, records, data, strict=True)),
        records=records,
        columns=list(dict.fromkeys(name for scene in scenes for name in scene.facts)),
        limit=number_text(limit),
        size_mb=sum(len(text) for texts in data for text in texts.values()) / 1e6,
        words=words,
    )
    with storage_errors("the point-cloud page", out):
        out.mkdir(parents=True, exist_ok=True)
        # Undecodable bytes of folder names (surrogates) become character references
        replace_atomically(out / INDEX, page.encode("utf-8", errors="xmlcharrefreplace"))
    return out / INDEX


def _record(scene: PageScene, predicted: PackedCloud, truth: PackedCloud, words: PageWords) -> dict[str, Any]:
    """Return what the page's script needs of a scene besides its points, as plain values."""
    cameras = {"predicted": camera_axes(scene.cameras_predicted), "true": camera_axes(scene.cameras_truth)}
    given = {"predicted": len(scene.cameras_predicted), "true": len(scene.cameras_truth)}
    points = truth.points() if truth.count else predicted.points()
    centre, radius = ball(points, cameras["true"][:, 0])
    start = overview(centre, radius)
    if len(cameras["true"]):
        start = view_of_camera(cameras["true"][0], points, fallback_distance=radius)
    distances = [cloud.distances for cloud in (predicted, truth) if cloud.distances is not None]
    scale = float(np.percentile(np.concatenate(distances), 95)) if distances else 0.0
    return {
        "name": scene.name,
        "radius": radius,
        "has_cameras": any(map(len, cameras.values())),
        "start": asdict(start),
        "overview": asdict(overview(centre, radius)),
        "scale": scale if scale > 0 else 1e-3 * radius,  # both clouds equal: any scale shows that
        "clouds": {
            "predicted": _cloud_record(predicted, words.right.lower()),
            "true": _cloud_record(truth, words.left.lower()),
        },
        "cameras": {name: np.round(axes, 6).reshape(-1, 12).tolist() for name, axes in cameras.items()},
        "notes": [
            f"{given[name] - len(axes)} of {given[name]} {name} cameras are not finite and not drawn."
            for name, axes in cameras.items()
            if len(axes) < given[name]
        ],
    }


def _cloud_record(cloud: PackedCloud, other: str) -> dict[str, Any]:
    words = [cloud.count_text()]
    if cloud.distances is not None:
        middle, high = np.percentile(cloud.distances, (50, 95))
        words.append(f"Distance to the nearest {other} point: median {middle:.3g}, 95 % below {high:.3g} scene units.")
    return cloud.record() | {"caption": " ".join([*words, *cloud.left_out_texts()])}
