"""Which layout a folder has: found by looking at it, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import refuse_web_page
from megasynth_attr.core.pages.words import in_words
from megasynth_attr.dataset import paths
from megasynth_train.data.layouts import clearpose, colmap, nerfstudio, paper, scannet, wai
from megasynth_train.data.layouts.names import AUTO, OURS
from megasynth_train.data.layouts.view import Layout

LAYOUTS = {module.LAYOUT.name: module.LAYOUT for module in (paper, nerfstudio, colmap, wai, scannet, clearpose)}
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_LEVELS = ("", "*/", "*/*/")  # where a source's scenes are: itself, or folders one or two levels below


@dataclass(frozen=True)
class Found:
    """A source: the name of its layout and, except for ours, the folders of its scenes, sorted."""

    layout: str
    folders: tuple[Path, ...] = ()


def choose(root: Path, wanted: str = AUTO, key: str = "data") -> Found:
    """Return the layout of ``root``: the ``wanted`` one, or with ``auto`` the only one that it holds.

    DatasetError, beginning with ``key``, if it is no folder, holds none, or holds several: those are named.
    """
    if not root.is_dir():
        if root.is_file():
            with root.open("rb") as file:
                refuse_web_page(file.read(200), root)
        unpacked = ", unpacked" if root.suffix in _ARCHIVES else ""
        what = f"this is a file; name a folder{unpacked}" if root.exists() else "there is no such folder"
        several = "; name several folders one by one, data=a data=b" if str(root).endswith("]") else ""
        raise DatasetError(f"{key}={root}: {what}{several}")
    names = LAYOUTS if wanted == AUTO else [name for name in LAYOUTS if name == wanted]
    ours = wanted in (AUTO, OURS) and is_ours(root)
    levels = _LEVELS[: 2 if not (root / paths.DATASET_FILE).is_file() else 1] if ours else _LEVELS
    found = [Found(name, tuple(folders)) for name in names if (folders := find_scenes(root, LAYOUTS[name], levels))]
    if ours:
        found.insert(0, Found(OURS))
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(f"{_several(root, found)}, or choose by format={found[0].layout}")
    if wanted == OURS:
        raise DatasetError(f"{root} holds no dataset ({paths.DATASET_FILE}) and no experiment")
    if wanted != AUTO:
        layout = LAYOUTS[wanted]
        raise DatasetError(f"{root} holds no scene in {layout.title} layout ({layout.marker}), nor do its subfolders")
    others = ", ".join(f"{layout.title} ({layout.marker})" for layout in list(LAYOUTS.values())[1:])
    raise DatasetError(
        f"{root} holds no dataset ({paths.DATASET_FILE}), no experiment, and no scene in the paper's layout "
        f"(<category>/<scene>/{paper.CAMERAS_FILE}) or {others}; docs/own-data.md lists the layouts"
    )


def layout_at(folder: Path) -> Layout | None:
    """Return the layout of which ``folder`` itself is a scene, None if it is none; DatasetError if it is of several."""
    found = [Found(name, (folder,)) for name, layout in LAYOUTS.items() if layout.is_scene(folder)]
    if len(found) > 1:
        raise DatasetError(_several(folder, found))
    return LAYOUTS[found[0].layout] if found else None


def is_ours(root: Path) -> bool:
    """Return whether a folder is a dataset or an experiment of the generator."""
    return (root / paths.DATASET_FILE).is_file() or any(root.glob(f"*/{paths.DATASET_FILE}"))


def find_scenes(root: Path, layout: Layout, levels: Sequence[str] = _LEVELS) -> list[Path]:
    """Return the scene folders at ``root`` or up to two levels below it, sorted; neither hidden folders nor folders
    inside scenes are looked at.
    """
    scenes: list[Path] = []
    for level in levels:
        for folder in [root] if level == "" else sorted(root.glob(level)):
            hidden = any(part.startswith(".") for part in folder.relative_to(root).parts)
            if not hidden and not any(parent in scenes for parent in folder.parents) and layout.is_scene(folder):
                scenes.append(folder)
    return sorted(scenes)


def _several(root: Path, found: Sequence[Found]) -> str:
    examples = in_words([f"{one.layout} ({one.folders[0] if one.folders else root})" for one in found])
    return f"{root} holds scenes of {len(found)} layouts: {examples}; name a folder with one of them"
