"""Opening a bank of material images: the procedural one, or one in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.core.files import read_regular
from megasynth_attr.core.names import inside
from megasynth_attr.textures.records import INDEX_NAME, Bank, MaterialRecord, files_identity, read_index, read_record
from megasynth_attr.textures.surface import MAPS


class DiskBank(Bank):
    """A bank in a folder: ``index.json`` and the files it names, made for example from MatSynth."""

    def __init__(self, folder: Path) -> None:
        """Read the index; raises DatasetError when the folder or the index is missing or invalid."""
        remedy = "make the bank first (python -m megasynth_attr.textures.matsynth --help) or use bank=procedural"
        if not folder.is_dir():
            raise DatasetError(f"the material bank {folder} is not a folder; {remedy}")
        path = folder / INDEX_NAME
        self._folder = folder
        self._listed: dict[str, dict[str, dict[str, str]]] = {}  # name → map → file and sha256
        self._checked: set[str] = set()
        records = []
        for entry in read_index(path, remedy)["materials"]:
            record = read_record(entry, path)
            if record.name in self._listed:
                raise DatasetError(f"{path}: {record.name} is listed twice; build the bank again")
            self._listed[record.name] = _listed_files(entry, record, path)
            records.append(record)
        super().__init__(records)

    def _files(self, names: list[str]) -> dict[str, dict[str, Path]]:
        """Return the files after comparing each with its hash in the index (once per bank)."""
        for name in names:
            if name not in self._checked:
                self._check(name)
                self._checked.add(name)
        return {name: {key: self._folder / self._listed[name][key]["file"] for key in MAPS} for name in names}

    def _check(self, name: str) -> None:
        for map_name, listed in self._listed[name].items():
            path = self._folder / listed["file"]
            try:
                found = hashlib.sha256(read_regular(path)).hexdigest()
            except OSError as error:
                raise DatasetError(
                    f"the {map_name} map of {name} cannot be read: {path} ({error.strerror}); "
                    f"copy it again or build the bank {self._folder} again"
                ) from error
            if found != listed["sha256"]:
                raise DatasetError(
                    f"the {map_name} map of {name} is damaged or was changed: {path} does not have the sha256 of the "
                    f"index; copy it again or build the bank {self._folder} again"
                )


def _listed_files(entry: dict[str, Any], record: MaterialRecord, path: Path) -> dict[str, dict[str, str]]:
    """Return map → file (inside the bank's folder) and sha256 of an entry; DatasetError where they do not fit."""
    try:
        files = {name: {key: str(entry["files"][name][key]) for key in ("file", "sha256")} for name in MAPS}
    except (KeyError, TypeError):
        raise DatasetError(
            f"{path}: {record.name} does not name a file and its sha256 for every map of {MAPS}; build the bank again"
        ) from None
    if files_identity({name: file["sha256"] for name, file in files.items()}) != record.identity:
        raise DatasetError(f"{path}: the identity of {record.name} does not fit its files; build the bank again")
    for file in files.values():
        inside(path.parent, file["file"], f"{path}: {record.name}")
    return files


def open_bank(spec: str, *, cache_dir: Path, size_px: int) -> Bank:
    """Return the bank named by ``spec``: "procedural", or the path of a folder with an index.json.

    The procedural bank makes its files on demand, ``size_px`` square, under ``cache_dir`` in a folder named after the
    bank's version and the size; a disk bank has the size it was built with. Raises DatasetError when the folder, the
    index or its entries are missing or invalid, ConfigError for a size outside 16 … 8192.
    """
    if not 16 <= size_px <= 8192:
        raise ConfigError(f"texture size {size_px} px is outside 16 … 8192; 512 is the default, 256 is quick")
    from megasynth_attr.textures.procedural.bank import ProceduralBank  # painting: loaded when it is asked for

    return ProceduralBank(Path(cache_dir), size_px) if spec == "procedural" else DiskBank(Path(spec))
