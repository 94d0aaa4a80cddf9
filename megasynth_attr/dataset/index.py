"""What dataset.json says of every scene, kept when the scene is rendered: finishing a dataset reads only what is new.

``index/<ttt>.jsonl`` has a line for every scene in ``scenes/<ttt>``; ``index/new/`` holds what runs have noted since.
Lines are JSON: the scene's name, its hashes, the names of its materials, and a checksum of these. Nothing depends on
them but speed: a line that is missing, cut, changed or damaged is made from the scene file, and the whole folder may be
removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import MOST_BYTES_PER_LINE, lines_of, open_regular, read_json, read_regular
from megasynth_attr.core.names import within
from megasynth_attr.core.temporary import TMP, remove_if_empty, working_folder
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.paths import INDEX, RENDER_ANEW
from megasynth_attr.dataset.scene_files import scene_file

NEW = "new"
MOST_BYTES = 2**26  # of notes that are held in memory
_SUM_BYTES = 13


class Line(NamedTuple):
    """What dataset.json needs to know of a scene."""

    name: str
    hashes: dict[str, str]
    materials: list[str]

    def text(self) -> bytes:
        """Return the line as it is written."""
        return _with_sum(json.dumps(self, sort_keys=True, separators=(",", ":"))[:-1].encode())


def note(dataset: Path, scene_json: str) -> None:
    """Note a scene that exists now, given its scene file; a disk that refuses costs time later, and nothing else."""
    scene = json.loads(scene_json)
    line = _line_of(paths.scene_name(scene["scene_index"]), scene)
    with suppress(OSError):
        file = _own_notes(dataset)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as notes:
            notes.write(line.text())


def drop_notes(dataset: Path) -> None:
    """Forget what this process has noted, as another has finished the dataset."""
    with suppress(OSError):
        _own_notes(dataset).unlink(missing_ok=True)
    remove_if_empty(_notes(dataset))


def bring_up_to_date(dataset: Path) -> tuple[set[str], str]:
    """Let the index list the scenes that exist. Returns the names of their materials, and ``names_digest``.

    DatasetError for a scene file that is new and damaged. Any number of processes may do so at once.
    """
    collect_notes(dataset)
    materials: set[str] = set()
    stale = set(_files(dataset))  # of thousands that have no scene any more
    with working_folder(dataset / TMP, INDEX) as temporary:

        def listed() -> Iterator[str]:
            for indices in filter(None, paths.finished_by_thousand(dataset)):
                file = _file_of(dataset, paths.scene_name(indices[0]))
                stale.discard(file)
                known, texts = dict(_each(file)), {}
                for name in map(paths.scene_name, indices):
                    if (line := _line(text := known.get(name, b""))) is None:
                        line = _line_from_scene(paths.scene_path(dataset, int(name)))
                        text = line.text()
                    texts[name] = text
                    materials.update(line.materials)
                    yield name
                _replace(file, texts, temporary)

        digest = names_digest(listed())
    for file in stale:
        file.unlink(missing_ok=True)
    return materials, digest


def collect_notes(dataset: Path) -> None:
    """Move what runs have noted into the files of the index."""
    files = sorted(_notes(dataset).glob("*.jsonl"))
    noted: dict[str, bytes] = {}
    size = 0
    for file in files:
        for name, text in _each(file):
            noted[name] = text
            size += len(text)
            if size > MOST_BYTES:
                _merge(dataset, noted)
                noted, size = {}, 0
    _merge(dataset, noted)
    for file in files:
        file.unlink(missing_ok=True)
    remove_if_empty(_notes(dataset))


def lines(dataset: Path) -> Iterator[Line]:
    """Yield the lines of the index in order of the scenes' names."""
    for file in _files(dataset):
        yield from filter(None, (_line(text) for _, text in _each(file)))


def names_digest(names: Iterable[str]) -> str:
    """Return a hash of the names of scenes."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode())
    return digest.hexdigest()


def _line_from_scene(path: Path) -> Line:
    scene = read_json(file := scene_file(path, paths.SCENE_FILE))
    try:
        return _line_of(path.stem, scene)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{file} is damaged ({error}); {RENDER_ANEW}") from None


def _line_of(name: str, scene: Mapping[str, Any]) -> Line:
    line = Line(name, dict(scene["hashes"]), sorted(scene["factors"].get("texture", {}).get("identities", {})))
    if not _is_whole(line):
        raise TypeError("hashes or identities is no table of texts")
    return line


def _merge(dataset: Path, noted: Mapping[str, bytes]) -> None:
    by_thousand: dict[str, dict[str, bytes]] = defaultdict(dict)
    for name, text in noted.items():
        by_thousand[name[:3]][name] = text
    with working_folder(dataset / TMP, INDEX) as temporary:
        for thousand, texts in by_thousand.items():
            file = _file_of(dataset, thousand)
            _replace(file, dict(_each(file)) | texts, temporary)


def _folder(dataset: Path) -> Path:
    return within(dataset, dataset / INDEX)


def _notes(dataset: Path) -> Path:
    return within(dataset, _folder(dataset) / NEW)


def _own_notes(dataset: Path) -> Path:
    return _notes(dataset) / f"{socket.gethostname()}.{os.getpid()}.jsonl"


def _files(dataset: Path) -> list[Path]:
    return sorted(_folder(dataset).glob("[0-9][0-9][0-9].jsonl"))


def _file_of(dataset: Path, scene: str) -> Path:
    return _folder(dataset) / f"{scene[:3]}.jsonl"


def _with_sum(begin: bytes) -> bytes:
    return begin + b',"%08x"]\n' % crc32(begin)


def _line(text: bytes) -> Line | None:
    """Return what a line of the index says; None if it is damaged."""
    begin = text[:-_SUM_BYTES]
    if _with_sum(begin) != text:
        return None
    try:
        line = Line(*json.loads(begin + b"]"))
    except (ValueError, TypeError, RecursionError):
        return None
    return line if _is_whole(line) else None


def _is_whole(line: Line) -> bool:
    if not (isinstance(line.hashes, dict) and isinstance(line.materials, list)):
        return False
    texts = (line.name, *line.hashes.values(), *line.materials)
    return all(isinstance(text, str) for text in texts) and paths.is_scene_name(line.name)


def _each(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the lines of a file of the index, each after the scene it is about; none if it cannot be read."""
    with suppress(OSError), open_regular(file) as opened:
        for text in lines_of(opened):
            if len(text) == MOST_BYTES_PER_LINE:  # what follows is not ours either
                return
            if text.endswith(b"\n") and paths.is_scene_name(name := text[2:8].decode("latin-1")):
                yield name, text


def _replace(file: Path, texts: Mapping[str, bytes], temporary: Path) -> None:
    """Let ``file`` hold these lines, in order; readers see the old ones or the new ones."""
    content = b"".join(texts[name] for name in sorted(texts))
    with suppress(OSError):
        if read_regular(file) == content:
            return
    file.parent.mkdir(exist_ok=True)
    (temporary / file.name).write_bytes(content)
    (temporary / file.name).replace(file)
