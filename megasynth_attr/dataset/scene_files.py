"""The files of one scene, whether it is a folder or an archive: the only place that knows the difference."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from megasynth_attr.core.files import sync_tree
from megasynth_attr.core.names import within
from megasynth_attr.dataset.archive import ArchiveWriter, Member, members
from megasynth_attr.dataset.paths import ARCHIVE, archive_file

File = Path | Member


def is_archive(scene: Path) -> bool:
    """Return whether the scene at this path is an archive; else it is a folder."""
    return scene.suffix == ARCHIVE


def scene_file(scene: Path, name: str) -> File:
    """Return a file of a scene, there or not; DatasetError if it is a link out of the dataset, or the archive bad."""
    dataset = scene.absolute().parent.parent.parent
    if is_archive(scene):
        return members(within(dataset, scene)).get(name, Member(scene, name))
    return within(dataset, scene / name)


def size_of(file: File) -> int:
    """Return the bytes of a file that is there."""
    return file.size if isinstance(file, Member) else file.stat().st_size


def size_and_time(file: File) -> tuple[int, int]:
    """Return the bytes of a file that is there, and when it or its archive was changed last, in nanoseconds."""
    return size_of(file), (file.archive if isinstance(file, Member) else file).stat().st_mtime_ns


def holds(scene: Path, layer: str) -> bool:
    """Return whether a scene was written with a layer; DatasetError as ``file_sizes``."""
    if is_archive(scene):
        return any(name.startswith(f"{layer}/") for name in members(scene))
    return (scene / layer).is_dir()


def file_sizes(scene: Path) -> dict[str, int]:
    """Return the bytes of every file of a scene, by name; DatasetError if its archive is missing or damaged."""
    if is_archive(scene):
        return {name: member.size for name, member in members(scene).items()}
    return {p.relative_to(scene).as_posix(): p.stat().st_size for p in scene.rglob("*") if p.is_file()}


def bytes_on_disk(scene: Path) -> int:
    """Return what a scene takes, damaged or not."""
    return scene.stat().st_size if scene.is_file() else sum(file_sizes(scene).values())


class FolderWriter:
    """Writes the files of a scene into a folder that exists, and is empty. ``finish`` leaves them all on disk."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        for new in sorted({(folder / name).parent for name in names} - {folder}):
            new.mkdir()

    def add(self, name: str, content: bytes) -> None:
        """Write a file; its name is one of those that were announced, or a record's."""
        (self._folder / name).write_bytes(content)

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def finish(self) -> Path:
        """Return the folder."""
        sync_tree(self._folder)
        return self._folder


def new_scene(folder: Path, scene_index: int, names: Iterable[str], pack: str) -> FolderWriter | ArchiveWriter:
    """Return what writes the files ``names`` of a scene into the temporary ``folder``, or into an archive in it."""
    if pack == "tar":
        return ArchiveWriter(folder / archive_file(folder, scene_index).name)
    return FolderWriter(folder, names)
