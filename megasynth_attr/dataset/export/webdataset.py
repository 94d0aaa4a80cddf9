"""WebDataset shards: plain tar files, equal bytes for equal datasets.

::

    <out>/<attribute>_<kk>-000000.tar
        <attribute>_<kk>/<tttsss>/0000.rgb.png  .depth.exr  [.normal.exr  .instance.png  .position.exr]  .json
                                       [.flow_forward.flo  .occlusion_forward.png  …  .disparity.exr]

One sample per **view**: its files are byte copies from the dataset, its ``json`` holds camera, scene, frame and the
scene's factor hashes. The views of a scene follow each other and no scene is split between shards, so multi-view
training groups neighbours (``__key__`` without its last part). Tar headers carry no times, owners or machine.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megasynth_attr.core.files import json_bytes, read_json
from megasynth_attr.core.pictures import read_content
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.export.derived import SUFFIXES, Derived
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.reader import Dataset, SceneData, View

WEBDATASET_FORMAT = "megasynth-attr webdataset 1"


def write_shard(file: Path, dataset: Dataset, scenes: Sequence[SceneData], derived: Derived) -> None:
    """Write all views of ``scenes`` as the tar file ``file``."""
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for scene in scenes:
            hashes = read_json(scene.file(paths.SCENE_FILE))["hashes"]
            for view, more in zip(scene.views, derived.files(scene.views), strict=True):
                members = {"json": json_bytes(_record(dataset, scene, view, hashes))}
                members |= {f"{name}{SUFFIXES[name]}": content for name, content in more.items()}
                _add_view(tar, f"{dataset.name}/{scene.name}/{view.index:04d}", view, members)


def _record(dataset: Dataset, scene: SceneData, view: View, hashes: dict[str, str]) -> dict[str, Any]:
    return {
        "format": WEBDATASET_FORMAT,
        "dataset": dataset.name,
        "scene": scene.index,
        "frame": view.index,
        "frames": len(scene.camera_from_world),
        "width_px": view.width_px,
        "height_px": view.height_px,
        "intrinsics": view.intrinsics.tolist(),
        "camera_from_world": view.camera_from_world.tolist(),
        "hashes": hashes,
    }


def _add_view(tar: tarfile.TarFile, key: str, view: View, members: dict[str, bytes]) -> None:
    """Add one sample: its files as the dataset has them, and ``members`` by extension."""
    for layer, suffix in paths.LAYERS.items():
        if view.has(layer):
            members[f"{layer}{suffix}"] = read_content(view.file(layer), RENDER_ANEW)
    for extension in sorted(members):
        header = tarfile.TarInfo(f"{key}.{extension}")  # mtime, uid, gid 0, no names: TarInfo's defaults
        header.size = len(members[extension])
        header.mode = 0o644
        tar.addfile(header, io.BytesIO(members[extension]))
