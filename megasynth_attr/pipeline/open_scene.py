"""Opens a scene file in Blender's window, or saves it as a .blend file. Runs inside Blender; see ``--help``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from megasynth_attr.core.codec import Part, from_plain
from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, DatasetError, first_line, print_note, run_main
from megasynth_attr.core.fields import REQUIRED, read_part, setting
from megasynth_attr.core.files import read_json
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.reader import Dataset, open_dataset
from megasynth_attr.dataset.scene_files import File, is_archive, scene_file
from megasynth_attr.farm.library import list_hdris, pictures_folder
from megasynth_attr.scene.factor import load_plugins, missing_plugin, registered
from megasynth_attr.scene.scans import list_scans
from megasynth_attr.scene.settings import RenderSettings, WriteSettings
from megasynth_attr.scene.spec import Assets, Scene, read_scene
from megasynth_attr.textures.bank import open_bank
from megasynth_attr.textures.pictures import list_pictures

HELP = Help(
    usage="""\
blender -P blender_scripts/open_scene.py -- scene=FOLDER [key=value ...]
       blender -b -P blender_scripts/open_scene.py -- scene=FOLDER save=FILE [key=value ...]
       python -m megasynth_attr.pipeline.open_scene scene=FOLDER save=FILE [key=value ...]""",
    explanation="""
Opens a scene file in Blender's window, with its camera path as an animation and a marker per view, or saves it.
""",
    examples=(
        "blender -P blender_scripts/open_scene.py -- scene=runs/demo/texture_00/scenes/000/000000",
        "python -m megasynth_attr.pipeline.open_scene scene=runs/demo/texture_00/scenes/000/000000 save=look.blend",
    ),
)


@dataclass(frozen=True)
class Options:
    """What is opened; where its images are, if not where the scene's dataset says."""

    scene: str = setting(REQUIRED, "the scene's folder or .tar file, or its scene file")
    save: str = setting("", "write a .blend file; required where Blender has no window")
    textures: str = setting(
        "pack", "pack: store the images in the .blend file; refer: store their paths", options=["pack", "refer"]
    )
    bank: str = setting("", "bank of the materials; empty: the dataset's")
    bank_size_px: int = setting(0, "size of the bank's maps; 0: the dataset's", minimum=0)
    pictures: str = setting("", "folder of the pictures; empty: the dataset's")
    hdris: str = setting("", "folder of the HDRIs; empty: the dataset's")
    scan_folder: str = setting("", "folder of the meshes; empty: the dataset's")
    cache: str = setting("", "where procedural materials are kept; empty: beside the dataset")
    plugins: tuple[str, ...] = setting((), "files or modules that declare further factors; none is taken from datasets")

    def file(self, name: str) -> File:
        """Return one of the scene's files; the scene file under the name that was given."""
        path = Path(self.scene).absolute()
        if path.is_dir() or is_archive(path):
            return scene_file(path, name)
        return path if name == paths.SCENE_FILE else path.with_name(name)


def main(words: list[str]) -> None:
    """Build the scene named by ``words`` in this Blender and show or save it."""
    options = parse(Options, words, HELP)
    load_plugins(options.plugins)
    dataset = dataset_of(Path(options.scene).absolute())
    options = completed(options, dataset)
    scene = read_scene(options.file(paths.SCENE_FILE), keep_unknown=True)
    for name in sorted(scene.factors.keys() - registered().keys()):
        recorded = dataset.recorded.config.plugins if dataset else {}
        print_note(f"the scene is shown without one factor: {missing_plugin(name, recorded)}")
        scene = replace(scene, factors={key: data for key, data in scene.factors.items() if key != name})
    from megasynth_attr.blender.build import build_scene
    from megasynth_attr.blender.compat import load_bpy
    from megasynth_attr.blender.timeline import animate_camera, prepare_for_people, save_blend

    if load_bpy().app.background and not options.save:
        raise ConfigError("save= is missing: this Blender has no window, so name the .blend file to write")
    settings, render = options.file(paths.RENDER_FILE), RenderSettings()
    if settings.is_file():
        render = from_plain(RenderSettings, read_json(settings).get("render"), str(settings))
    try:
        stage = build_scene(scene, find_assets(scene, options), render=render, write=WriteSettings())
        animate_camera(stage)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # whatever a stranger's numbers lead to
        why = f"{type(error).__name__}: {first_line(error)}"
        raise DatasetError(f"{options.scene} is no scene that can be shown ({why}); fetch it again") from error
    prepare_for_people(stage)
    if options.save:
        save_blend(stage, Path(options.save), pack=options.textures == "pack")
        print(f"saved {options.save}")


def dataset_of(scene: Path) -> Dataset | None:
    """Return the dataset that a scene, or the scene file in its folder, lies in; None if it lies in none."""
    found = [folder for folder in scene.parents[2:4] if (folder / paths.DATASET_FILE).is_file()]
    return open_dataset(found[0]) if found else None


@dataclass(frozen=True)
class _Images(Part):
    """Where a dataset says that its images and meshes are."""

    bank: str = "procedural"
    bank_size_px: int = 512
    pictures: str = ""
    hdris: str = ""
    scan_folder: str = ""


def completed(options: Options, dataset: Dataset | None) -> Options:
    """Return ``options`` with what is empty taken from the dataset that the scene lies in, if it lies in one."""
    factors = dataset.record["config"].get("factors", {}) if dataset else {}
    settings = {
        key: value for name in ("geometry", "texture", "lighting") for key, value in factors.get(name, {}).items()
    }
    images = read_part(_Images, settings, paths.DATASET_FILE)
    return replace(
        options,
        **{name: getattr(options, name) or value for name, value in vars(images).items()},
        cache=options.cache or str(dataset.path.parent / "cache" if dataset else Path("runs") / "cache"),
    )


def find_assets(scene: Scene, options: Options) -> Assets:
    """Return the paths of the images the scene names; DatasetError or ConfigError if one is not where it should be."""
    texture, lighting = scene.factors["texture"], scene.factors["lighting"]
    bank = open_bank(options.bank, cache_dir=Path(options.cache), size_px=options.bank_size_px)
    maps = bank.materialise(sorted(texture.identities))
    pictures, hdris, scans = {}, {}, {}
    if texture.picture is not None:
        pictures = {p.name: str(p.path) for p in list_pictures(pictures_folder(options.pictures))}
    if lighting.hdri is not None:
        if not options.hdris:
            raise ConfigError(f"hdris= is missing: the scene is lit by {lighting.hdri.name}; name the folder it is in")
        hdris = {h.name: h.path for h in list_hdris(Path(options.hdris))}
    if (scan := scene.factors["geometry"].scan) is not None:
        if not options.scan_folder:
            raise ConfigError(f"scan_folder= is missing: the scene shows {scan.name}; name the folder it is in")
        scans = {record.name: str(record.path) for record in list_scans(Path(options.scan_folder), "*")}
    materials = {name: {m: str(p) for m, p in files.items()} for name, files in maps.items()}
    return Assets(materials, pictures, hdris, scans)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
