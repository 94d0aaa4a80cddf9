"""Scenes as archives instead of folders, or back: ``python -m megasynth_attr.dataset.pack dataset=<dir>``."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.command.words import shown
from megasynth_attr.core.errors import DatasetError, EnvironmentProblem, run_main
from megasynth_attr.core.fields import REQUIRED, setting
from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.pictures import read_content
from megasynth_attr.core.selection import parse_indices
from megasynth_attr.core.temporary import publish, remove_leftovers, working_folder
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.archive import in_order
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.reader import Dataset, SceneData, open_datasets
from megasynth_attr.dataset.scene_files import file_sizes, new_scene


@dataclass(frozen=True)
class Options:
    """The keys of the command."""

    dataset: str = setting(REQUIRED, "a dataset folder, or an output folder: all its datasets")
    to: str = setting("tar", "tar: one file a scene; folder: one folder a scene", options=["tar", "folder"])
    scenes: str = setting("all", "which scenes: all, 0-9, 0,3,7; those that do not exist yet are skipped")


HELP = Help(
    usage="python -m megasynth_attr.dataset.pack dataset=<dir> [to=tar|folder] [scenes=0-9]",
    explanation="""
Makes one tar file of every scene's folder, or folders of tar files again. Every program reads both, and they hold the
same bytes. A scene is changed as a whole or not at all, and what it was goes only when the other form was read back;
one that is damaged is left alone, and the first of those is named. Running the same command again continues.
""",
    examples=(
        "python -m megasynth_attr.dataset.pack dataset=runs/demo",
        "python -m megasynth_attr.dataset.pack dataset=runs/demo/texture_00 to=folder scenes=0-9",
    ),
)


def convert(dataset: Dataset, scene_index: int, to: str) -> bool:
    """Turn a scene into an archive (``to`` "tar") or a folder; False if there is nothing to turn.

    DatasetError, with nothing changed, if it is damaged or holds more than a scene does; EnvironmentProblem if the disk
    refuses. Other commands may do the same at once, or the opposite: one form of the scene is always there.
    """
    folder, archive = paths.scene_dir(dataset.path, scene_index), paths.archive_file(dataset.path, scene_index)
    old, new = (folder, archive) if to == "tar" else (archive, folder)
    if not os.path.lexists(old):
        return False
    try:
        _convert(dataset, scene_index, old, new, to)
    except (DatasetError, EnvironmentProblem):
        if os.path.lexists(old):
            raise
        return False  # another command was faster
    return True


def _convert(dataset: Dataset, scene_index: int, old: Path, new: Path, to: str) -> None:
    source = SceneData(old)
    _require_whole(source)
    with storage_errors("a scene", new), working_folder(dataset.path / paths.TMP, source.name) as work:
        (work / "new").mkdir()
        with closing(new_scene(work / "new", scene_index, source.checksums, to)) as files:
            for name in [*in_order(source.checksums), paths.CHECKSUMS_FILE]:
                files.add(name, read_content(source.file(name), RENDER_ANEW))
            built = files.finish()
        _require_whole(SceneData(built))
        if not publish(built, new):  # an earlier command was killed before the old form went
            _require_whole(SceneData(new))
        old.rename(work / "old")  # which is removed with it
        if not os.path.lexists(new):  # another command has just done the opposite
            (work / "old").rename(old)


def _require_whole(scene: SceneData) -> None:
    """Raise DatasetError unless a scene holds exactly the files that it was written with."""
    listed, present = scene.checksums.keys(), file_sizes(scene.path).keys() - {paths.CHECKSUMS_FILE}
    if strange := sorted(present - listed):
        raise DatasetError(
            f"{scene.path}: {shown(strange[0])} is no file of the scene; move it elsewhere, then run this again"
        )
    scene.require_unchanged(listed)


def main(words: list[str]) -> None:
    """Convert the datasets named by ``words``."""
    options = parse(Options, words, HELP)
    for dataset in open_datasets(Path(options.dataset)):
        remove_leftovers(dataset.path / paths.TMP)
        wanted = set(parse_indices(options.scenes, dataset.scene_count, "scenes"))
        chosen = [index for index in paths.finished_scenes(dataset.path) if index in wanted]
        changed, damaged = 0, list[DatasetError]()
        for index in tqdm(chosen, desc=f"{dataset.name} to {options.to}", unit="scene"):
            try:
                changed += convert(dataset, index, options.to)
            except DatasetError as error:
                damaged.append(error)
        form = "a tar file" if options.to == "tar" else "a folder"
        print(f"{dataset.name}: {changed} of {len(chosen)} scenes became {form}", flush=True)
        if damaged:
            raise DatasetError(f"{dataset.path}: {len(damaged)} scenes left as they are, the first: {damaged[0]}")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
