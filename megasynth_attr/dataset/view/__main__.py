"""``python -m megasynth_attr.dataset.view dataset=<dir> scene=0,3``"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.command.words import shown
from megasynth_attr.core.errors import ConfigError, DatasetError, run_main
from megasynth_attr.core.fields import REQUIRED, setting
from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.names import within
from megasynth_attr.core.pages.words import listed, size_text
from megasynth_attr.core.selection import parse_indices
from megasynth_attr.core.streams import Scope
from megasynth_attr.core.temporary import create_exclusively
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.paths import RENDER_REST
from megasynth_attr.dataset.reader import Dataset, SceneData, open_dataset
from megasynth_attr.dataset.view import page, recording
from megasynth_attr.dataset.view.scene import ShownScene, read_scenes

MOST_SCENES = 2
# format → ending of the file, what must be installed, what makes the bytes
WRITERS: dict[str, tuple[str, Callable[[], None], Callable[[str, list[ShownScene]], bytes]]] = {
    "html": (".html", page.require_libraries, page.page_of),
    "rerun": (".rrd", recording.require_libraries, recording.recording_of),
}


@dataclass(frozen=True)
class Options:
    """The keys of the command."""

    dataset: str = setting(REQUIRED, "a dataset folder such as runs/demo/texture_00")
    scene: str = setting(
        "", "one scene, or two beside each other: 3 or 0,3; empty: the first two, one only if everything varies"
    )
    out: str = setting("", "file to write, which must not exist; empty: view/<scenes>.html in the dataset's folder")
    format: str = setting("html", "html: a page for any browser; rerun: a file for rerun", options=[*WRITERS])
    points: int = setting(
        200_000, "most points of a scene, an even sample of all its views", minimum=1, maximum=2_000_000
    )
    frames: int = setting(
        100, "most views of a scene, evenly spread over its path; points come from these", minimum=1, maximum=2_000
    )
    picture_px: int = setting(320, "longer side of the pictures in the file", minimum=16, maximum=2_048)


HELP = Help(
    usage="python -m megasynth_attr.dataset.view dataset=<dir> [scene=0,3] [out=FILE]",
    explanation="""
Writes one file in which scenes can be looked at in three dimensions: the coloured points of all views, the cameras, and
every frame's picture. Two scenes move together, so that what differs between them is seen. The page needs a browser
and nothing else: no server, no network, no graphics card. 100 views and 200,000 points of two scenes make 5 to 10 MB.
""",
    examples=(
        "python -m megasynth_attr.dataset.view dataset=runs/demo/texture_00",
        "python -m megasynth_attr.dataset.view dataset=runs/demo/camera_00 scene=0,2 points=1000000 out=look.html",
        "python -m megasynth_attr.dataset.view dataset=runs/demo/texture_00 scene=1 format=rerun out=look.rrd",
    ),
)


def write_view(options: Options, progress: bool = True) -> Path:
    """Write the file that ``options`` describe, whole or not at all; return its path.

    Raises ConfigError for scenes that do not exist and a file that does, DatasetError where data is missing or damaged,
    EnvironmentProblem if a package is missing or the disk refuses.
    """
    dataset = open_dataset(options.dataset)
    scenes = chosen_scenes(dataset, options.scene)
    ending, require_libraries, content_of = WRITERS[options.format]
    name = "_".join(scene.name for scene in scenes) + ending
    out = Path(options.out) if options.out else within(dataset.path, dataset.path / paths.VIEW) / name
    _require_new(out)
    require_libraries()
    read = read_scenes(scenes, options.points, options.frames, options.picture_px, progress)
    content = content_of(dataset.name, read)
    with storage_errors("the view", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if not create_exclusively(out, content):
            _require_new(out)
    return out


def chosen_scenes(dataset: Dataset, text: str) -> list[SceneData]:
    """Return the one or two scenes that ``text`` names; ConfigError, naming some that exist, for others.

    Empty: the first, and the second beside it unless everything differs between them.
    """
    if not text:
        isolated = any(factor.scope != Scope.SCENE for factor in dataset.recorded.config.factors.values())
        indices = paths.finished_scenes(dataset.path)[: MOST_SCENES if isolated else 1]
        if not indices:
            raise DatasetError(f"{dataset.path} has none of its {dataset.scene_count} scenes yet; {RENDER_REST}")
        return [dataset.scene(index) for index in indices]
    indices = parse_indices(text, dataset.scene_count, "scene")
    if len(indices) > MOST_SCENES:
        raise ConfigError(f"scene={shown(text)}: that is {len(indices)} scenes; name one or two, such as scene=0,3")
    for index in indices:
        if not paths.is_finished(dataset.path, index):
            near = sorted(paths.finished_scenes(dataset.path), key=lambda other: abs(other - index))
            there = f"the nearest that do are {listed(map(str, sorted(near[:4])))}" if near else "it has none yet"
            raise ConfigError(
                f"scene={shown(text)}: scene {index} does not exist in {dataset.path}; {there}; {RENDER_REST}"
            )
    return [dataset.scene(index) for index in indices]


def _require_new(out: Path) -> None:
    with storage_errors("the view", out):
        is_folder, is_there = out.is_dir(), out.exists() or out.is_symlink()
    if is_folder:
        raise ConfigError(f"out={out} is a folder; name a file in it, such as out={out / 'look.html'}")
    if is_there:
        raise ConfigError(f"{out} exists; delete it, or name another file: out=FILE")


def main(words: list[str]) -> None:
    """Write the view that ``words`` describe, or print the help."""
    out = write_view(parse(Options, words, HELP))
    print(f"wrote {out} ({size_text(out.stat().st_size)})")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
