"""What is drawn for every preset, as hashes: the contents of scenes.json. Shared by the test and the recorder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megasynth_attr import __version__
from megasynth_attr.core.codec import content_hash
from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.streams import Scope, stream, stream_key
from megasynth_attr.farm.library import open_library
from megasynth_attr.scene.config import Config, preset_names, resolve
from megasynth_attr.scene.sample import sample_scene
from megasynth_attr.scene.spec import scene_to_json

FOLDER = Path(__file__).parent
SMALL = "frames=2"
# name → words; paths are relative to this folder, since they are part of a fingerprint
VARIED = {
    "texture variants": ("preset=texture", "texture.scope=dataset", "texture.variants=4"),
    "texture pool": ("preset=texture", "texture.pool_size=3", "texture.slot_count=7", "texture.override_scene_p=1"),
    "texture of some categories": ("preset=texture", "texture.categories=[wood,metal]"),
    "geometry variants": ("preset=lighting", "geometry.variants=2"),
    "geometry sees no finer factor": ("preset=micro_texture", "geometry.variants=4", "camera.variants=2"),
    "noise per experiment": ("preset=texture", "noise_scope=experiment"),
    "noise per dataset": ("preset=texture", "noise_scope=dataset"),
    "noise per scene": ("preset=texture", "noise_scope=scene"),
    "another seed": ("preset=everything", "seed=7"),
    "another attribute": ("preset=geometry", "attribute=shape"),
    "one dataset": ("preset=camera", "dataset_count=1"),
    "pictures": ("preset=spoof_plane", "texture.pictures=pictures"),
    "pictures per dataset": ("preset=spoof_plane", "texture.scope=dataset", "texture.variants=2", "dataset_count=3"),
    "environment pictures": ("preset=lighting", "lighting.hdris=hdris", "lighting.hdri_strength=2"),
    "room with everything": ("preset=megasynth", "lighting.window_sun_p=1", "lighting.bulb_p=1", "dataset_count=2"),
    "all kinds of shapes": (
        "preset=geometry",
        "geometry.kind_weights.cone=1",
        "geometry.kind_weights.torus=1",
        "geometry.kind_weights.capsule=1",
    ),
    "layers and sizes": (
        "preset=demo",
        "members=[texture,camera]",
        "downstream=",
        "write.normal=true",
        "write.depth=float16",
        "render.width_px=28",
        "render.samples=3",
        "quality=draft",
    ),
    "scans": ("preset=scan", "geometry.scan_folder=meshes", "scene_count=2"),
    "scans divided": (
        "preset=thuman",
        "geometry.scan_folder=meshes",
        "geometry.scan_pattern=*",
        "geometry.scan_test=1",
        "scene_count=1",
        "lighting.scope=dataset",
    ),
    "scanned people": (
        "preset=demo_human",
        "geometry.scan_folder=meshes",
        "scene_count=2",
        *(f"downstream.{name}.geometry.scan_folder=meshes" for name in ("thuman", "twok2k")),
        *(f"downstream.{name}.geometry.scan_pattern=*" for name in ("thuman", "twok2k")),
        *(f"downstream.{name}.geometry.scan_test=1" for name in ("thuman", "twok2k")),
        *(f"downstream.{name}.scene_count=1" for name in ("thuman", "twok2k")),
    ),
    "heads": ("preset=spoof_heads", "geometry.scan_folder=meshes", "scene_count=2"),
    "free words": ("preset=texture", "scene_count=2000", "isolation.scenes=3", "workers=3", "datasets=0", "scenes=5"),
    "training words": ("preset=demo", "members=[texture]", "training.optim.steps=9", "downstream_count=3"),
}
STREAMS = [
    (seed, factor, scope, dataset, scene, variants)
    for seed, factor, dataset, scene in ((0, "texture", 0, 0), (7, "noise", 3, 5))
    for scope in Scope
    for variants in (1, 4)
]


def record() -> dict[str, Any]:
    """Return what today's program draws."""
    presets = {name: (f"preset={name}",) for name in preset_names()}
    with _here():
        return {
            "version": __version__,
            "streams": dict(_stream(*arguments) for arguments in STREAMS),
            "presets": {name: experiment(words) for name, words in presets.items()},
            "varied": {name: experiment(words) for name, words in VARIED.items()},
        }


def experiment(words: tuple[str, ...]) -> dict[str, Any]:
    """Return the members of one experiment at its smallest, or why there is none."""
    try:
        resolved = resolve([*words, SMALL])
        members = {config.attribute: member(config) for config in resolved.configs}
    except (ConfigError, DatasetError) as error:  # DatasetError: the meshes of demo_human have to be made
        return {"refused": str(error)}
    return {"preset": resolved.preset, "downstream": resolved.downstream is not None, "members": members}


def member(config: Config) -> dict[str, Any]:
    """Return one attribute's settings as far as they decide what is drawn, and scenes of its first and last dataset."""
    content, identity = config.content, config.identity_record()
    library = open_library(config, FOLDER / "no_material_is_made_here")
    scenes = {}
    for dataset in sorted({0, content.dataset_count - 1}):
        for index in (0, 1):
            scene = sample_scene(config, dataset, index, library.records)
            text = scene_to_json(scene)
            file = hashlib.sha256(text.encode()).hexdigest()
            scenes[scene.name] = {"file": file, "noise_seed": scene.noise_seed, **json.loads(text)["hashes"]}
    return {
        "fingerprint": config.fingerprint(),
        "parts": {name: content_hash(identity[name]) for name in ("content", "render", "write", "plugins")}
        | {f"factors.{name}": content_hash(value) for name, value in identity["factors"].items()},
        "drawn": {name: [str(s.scope), s.variants] for name, s in config.factors.items()},
        "seed": content.seed,
        "noise_scope": str(content.noise_scope),
        "datasets": content.dataset_count,
        "scenes_per_dataset": content.scene_count,
        "size_px": [config.render.width_px, config.render.height_px],
        "materials": len(library.records.materials),
        "pictures": {name: picture.sha256 for name, picture in library.records.pictures.items()},
        "hdris": {name: hdri.sha256 for name, hdri in library.records.hdris.items()},
        "scenes": scenes,
    }


def _stream(seed: int, factor: str, scope: Scope, dataset: int, scene: int, variants: int) -> tuple[str, list[int]]:
    """Return a stream's key and its first numbers."""
    key = stream_key(
        seed, factor, scope, attribute="texture", dataset_index=dataset, scene_index=scene, variants=variants
    )
    return key, stream(key).integers(2**32, size=3).tolist()


@contextmanager
def _here() -> Iterator[None]:
    before = Path.cwd()
    os.chdir(FOLDER)
    try:
        yield
    finally:
        os.chdir(before)
