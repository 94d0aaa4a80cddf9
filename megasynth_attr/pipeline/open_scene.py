"""Opens a scene file in Blender's window, or saves it as a .blend file. Runs inside Blender; see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasynth_attr.core.codec import from_plain
from megasynth_attr.core.errors import ConfigError, run_main
from megasynth_attr.core.files import read_json
from megasynth_attr.core.keys import parse_words
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.dataset import paths
from megasynth_attr.farm.library import list_hdris
from megasynth_attr.scene.assets import Assets
from megasynth_attr.scene.factor import load_plugins
from megasynth_attr.scene.settings import RenderSettings, WriteSettings
from megasynth_attr.scene.spec import Scene, read_scene
from megasynth_attr.textures.bank import open_bank
from megasynth_attr.textures.pictures import list_pictures

HELP = """Open a scene file in Blender's window, with its camera path as an animation and a marker per view:

    blender -P blender_scripts/open_scene.py -- scene=runs/demo/texture_00/scenes/000/000000/scene.json

or save it, with Blender or with the bpy module:

    blender -b -P blender_scripts/open_scene.py -- scene=... save=look.blend
    python -m megasynth_attr.pipeline.open_scene scene=... save=look.blend

scene=FILE       the scene file, or the scene's folder
save=FILE        write a .blend file; required where Blender has no window
textures=pack    pack: store the images in the .blend file; refer: store their paths
bank= bank_size_px= pictures= hdris=   where the images are; by default what the scene's dataset says
cache=FOLDER     where procedural materials are kept; by default beside the dataset
plugins=[...]    modules that define further factors; by default those of the dataset"""


@dataclass(frozen=True)
class Options:
    """The command line, completed from the dataset that the scene lies in."""

    scene: Path
    save: Path | None
    pack: bool
    bank: str
    bank_size_px: int
    pictures: str
    hdris: str
    cache: Path
    plugins: tuple[str, ...]


KEYS = ("scene", "save", "textures", "bank", "bank_size_px", "pictures", "hdris", "cache", "plugins")


def main(words: list[str]) -> None:
    """Build the scene named by ``words`` in this Blender and show or save it."""
    if not words or "--help" in words or "help" in words:
        print(HELP)
        return
    options = read_options(words)
    load_plugins(options.plugins)
    scene = read_scene(options.scene)
    from megasynth_attr.blender.build import build_scene
    from megasynth_attr.blender.compat import load_bpy
    from megasynth_attr.blender.timeline import animate_camera, prepare_for_people, save_blend

    if load_bpy().app.background and options.save is None:
        raise ConfigError("save= is missing: this Blender has no window, so name the .blend file to write")
    render = render_settings(options.scene.with_name(paths.RENDER_FILE))
    stage = build_scene(scene, find_assets(scene, options), render=render, write=WriteSettings())
    animate_camera(stage)
    prepare_for_people(stage)
    if options.save is not None:
        save_blend(stage, options.save, pack=options.pack)
        print(f"saved {options.save}")


def read_options(words: Sequence[str]) -> Options:
    """Return the Options of a command line; ConfigError for an unknown key or a missing scene."""
    given = parse_words(words)
    if unknown := [key for key in given if key not in KEYS]:
        raise ConfigError(f"unknown key {unknown[0]}; known: {', '.join(KEYS)}; --help explains them")
    if "scene" not in given:
        raise ConfigError("scene= is missing: name a scene.json, e.g. scene=runs/demo/texture_00/scenes/000/000000")
    scene = Path(str(given["scene"]))
    scene = (scene / paths.SCENE_FILE if scene.is_dir() else scene).absolute()
    textures = str(given.get("textures", "pack"))
    if textures not in ("pack", "refer"):
        raise ConfigError(f"textures={textures}: must be pack or refer")
    dataset = scene.parents[3] if len(scene.parents) > 4 else scene.parent
    config = dataset_config(dataset / paths.DATASET_FILE)
    texture, lighting = config.get("factors", {}).get("texture", {}), config.get("factors", {}).get("lighting", {})
    return Options(
        scene=scene,
        save=Path(str(given["save"])) if "save" in given else None,
        pack=textures == "pack",
        bank=str(given.get("bank", texture.get("bank", "procedural"))),
        bank_size_px=int(given.get("bank_size_px", texture.get("bank_size_px", 512))),
        pictures=str(given.get("pictures", texture.get("pictures", ""))),
        hdris=str(given.get("hdris", lighting.get("hdris", ""))),
        cache=Path(str(given.get("cache", dataset.parent / "cache" if config else Path("runs") / "cache"))),
        plugins=tuple(given.get("plugins", config.get("content", {}).get("plugins", ()))),
    )


def dataset_config(file: Path) -> Mapping[str, Any]:
    """Return the settings a dataset was made with; empty if the scene lies in none."""
    return read_json(file).get("config", {}) if file.is_file() else {}


def render_settings(file: Path) -> RenderSettings:
    """Return the render settings stored beside a scene; the defaults if it lies alone. Noise does not matter here."""
    return from_plain(RenderSettings, read_json(file)["render"], str(file)) if file.is_file() else RenderSettings()


def find_assets(scene: Scene, options: Options) -> Assets:
    """Return the paths of the images the scene names; DatasetError or ConfigError if one is not where it should be."""
    texture, lighting = scene.factors["texture"], scene.factors["lighting"]
    bank = open_bank(options.bank, cache_dir=options.cache, size_px=options.bank_size_px)
    maps = bank.materialise(sorted(texture.identities))
    pictures, hdris = {}, {}
    if texture.picture is not None:
        folder = Path(options.pictures) if options.pictures else resource_dir("assets") / "pictures"
        pictures = {p.name: str(p.path) for p in list_pictures(folder)}
    if lighting.hdri is not None:
        if not options.hdris:
            raise ConfigError(f"hdris= is missing: the scene is lit by {lighting.hdri.name}, name the folder it is in")
        hdris = {h.name: h.path for h in list_hdris(Path(options.hdris))}
    return Assets({name: {m: str(p) for m, p in files.items()} for name, files in maps.items()}, pictures, hdris)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
