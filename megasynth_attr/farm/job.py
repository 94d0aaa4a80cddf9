"""What one Blender worker needs to know to render one scene."""

from __future__ import annotations

from dataclasses import dataclass

from megasynth_attr.scene.assets import Assets
from megasynth_attr.scene.settings import RenderSettings, WriteSettings


@dataclass(frozen=True)
class RenderJob:
    """One scene, its files and the settings that matter inside Blender; travels as JSON."""

    scene_json: str  # text of the scene file
    dataset_dir: str
    assets: Assets
    render: RenderSettings
    write: WriteSettings
    quality: str
    device: str
    threads: int
    plugins: tuple[str, ...]
