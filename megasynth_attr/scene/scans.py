"""Mesh files of a user's folder: which there are, the files each is made of, and its surface. Needs no Blender.

Lengths and axes are those of the file. A file that cannot be used raises SceneRejected, which names it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote

import numpy as np

from megasynth_attr.core.codec import content_hash
from megasynth_attr.core.errors import DatasetError, SceneRejected, importing
from megasynth_attr.core.files import read_regular
from megasynth_attr.scene.ply import read_mixed_ply

MESH_SUFFIXES = (".obj", ".ply", ".glb")
SIZES = (1e-6, 1e9)  # of the longest side: far from where squares leave the range of float32
FARTHEST = 1000.0  # from the file's origin, in longest sides: there float32 resolves 1e-4 of the mesh
# the textures that Blender reads from a material library; others (map_Ka, disp, decal) it ignores
_MAPS = re.compile(rb"^[ \t]*(?:map_(?:Kd|Ks|Ns|Ke|d|Pr|Pm|Ps|refl|Bump)|bump|norm|refl)[ \t]+(.+)$", re.M | re.I)
# .obj counts from 1: Blender leaves such faces out, trimesh takes the last vertex
_VERTEX_ZERO = re.compile(rb"^[ \t]*f[ \t](?:[^\n]*[ \t])?[+-]?0+(?:[/\s]|$)", re.M)
_LIBRARIES = re.compile(rb"^[ \t]*mtllib[ \t]+(.+)$", re.M)
_MAP_OPTION = re.compile(r"-(?:[ost](?:[ \t]+[-+.\deE]+){1,3}|mm(?:[ \t]+[-+.\deE]+){2}|[a-zA-Z]+[ \t]+[^ \t]+)[ \t]+")


@dataclass(frozen=True)
class Outline:
    """What a scene needs to know of a mesh before Blender reads it."""

    sha256: str  # of the mesh file, and of its materials and textures if these are shown
    low: tuple[float, float, float]  # bounding box of the faces
    high: tuple[float, float, float]
    reach: float  # distance of the vertex that is farthest from the box's centre


@dataclass(frozen=True)
class ScanRecord:
    """One mesh file of a folder; nothing of it is read before a scene shows it."""

    name: str  # its path below the folder, with "/"
    path: Path

    def outline(self, *, own_materials: bool) -> Outline:
        """Return the mesh's Outline; ``own_materials``: with the files of its materials, all of which must exist."""
        points = np.concatenate([vertices[np.unique(faces)] for vertices, faces in self._parts()])
        low, high = points.min(axis=0), points.max(axis=0)
        longest = (high - low).max()
        if not SIZES[0] <= longest <= SIZES[1]:
            raise SceneRejected(
                f"the mesh {self.path} is {longest:g} long; scale it to a length between {SIZES[0]:g} and {SIZES[1]:g}"
            )
        if (away := max(np.abs(low).max(), np.abs(high).max())) > FARTHEST * longest:
            raise SceneRejected(
                f"the mesh {self.path} is {longest:g} long but {away:g} away from its origin, too far for 32-bit "
                "numbers; move it to the origin"
            )
        reach = float(np.linalg.norm(points - (low + high) / 2, axis=1).max())
        return Outline(self.sha256(own_materials=own_materials), tuple(low.tolist()), tuple(high.tolist()), reach)

    def sha256(self, *, own_materials: bool) -> str:
        """Return the hash of the mesh file, and of its material files with the names it gives them."""
        files = {"": self.path} | (self.material_files() if own_materials else {})
        return content_hash({name: hashlib.sha256(_content(path)).hexdigest() for name, path in files.items()})

    def material_files(self) -> dict[str, Path]:
        """Return the material libraries and textures that the mesh file names, by those names.

        SceneRejected for one that is missing, or that is not below the record's folder.
        """
        if self.path.suffix.lower() == ".obj":
            return self._obj_files()
        if self.path.suffix.lower() == ".glb":
            return {name: self._referred(name, self.path.parent) for name in self._glb_names("images", "buffers")}
        return {}

    def triangles(self) -> np.ndarray:
        """Return the T×3×3 corners (float64) of all faces, larger ones split."""
        return np.concatenate([vertices[faces] for vertices, faces in self._parts()])

    def _parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return vertices (V×3 float64) and triangles (T×3 into them) of every part that has faces; at least one."""
        trimesh = _trimesh()
        content = _content(self.path)
        kind = self.path.suffix[1:].lower()
        try:
            parts = _loaded(trimesh, content, kind)
            used = [vertices[faces.ravel()] for vertices, faces in parts]
        except Exception as error:  # decoders raise whatever they like on damaged files
            said = " ".join(str(error).split()) or type(error).__name__
            if kind == "glb" and self._glb_names("buffers"):
                said = "its vertices are in another file: export it as one .glb"
            raise SceneRejected(f"the mesh {self.path} cannot be read ({said}); repair or remove it") from error
        if not parts:
            raise SceneRejected(f"the mesh {self.path} has no faces; export it with its surface, not only its points")
        zero = kind == "obj" and _VERTEX_ZERO.search(content)
        if zero or any((faces < 0).any() for _, faces in parts):
            raise SceneRejected(f"the mesh {self.path} has faces of vertices that do not exist; repair it")
        if not all(np.isfinite(points).all() for points in used):
            raise SceneRejected(f"the mesh {self.path} has vertices that are not finite numbers; repair it")
        return parts

    def _obj_files(self) -> dict[str, Path]:
        files: dict[str, Path] = {}
        libraries = [text.strip("\"' ") for text in _names(_LIBRARIES, _content(self.path))]
        beside = self.path.with_suffix(".mtl").name  # which Blender reads too
        if beside not in libraries and self.path.with_suffix(".mtl").is_file():
            libraries.append(beside)
        for library in libraries:
            files[library] = self._referred(library, self.path.parent)
            for text in _names(_MAPS, _content(files[library])):
                while option := _MAP_OPTION.match(text):
                    text = text[option.end() :]
                name = text.strip("\"' ")
                files[name] = self._referred(name, files[library].parent)
        return files

    def _glb_names(self, *kinds: str) -> list[str]:
        """Return the outer files of these kinds of a GLB file: usually none, for it can hold its textures itself."""
        content = _content(self.path)
        try:
            (length,) = struct.unpack_from("<I", content, 12)
            record = json.loads(content[20 : 20 + length])
            items = [item for kind in kinds for item in record.get(kind, [])]
            return [unquote(item["uri"]) for item in items if item.get("uri") and not item["uri"].startswith("data:")]
        except (struct.error, ValueError, AttributeError, TypeError, RecursionError) as error:
            raise SceneRejected(f"the mesh {self.path} is no GLB file ({error}); repair or remove it") from error

    def _referred(self, name: str, beside: Path) -> Path:
        """Return the file of a name given in a file in the folder ``beside``."""
        folder = self.path.parents[len(PurePosixPath(self.name).parts) - 1].resolve()
        try:
            path = (beside / name.replace("\\", "/")).resolve()
            if path.is_symlink():
                raise RuntimeError("links in a circle")  # as Python says before 3.13
            there = path.is_file()
        except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, links in a circle
            shown = name if len(name) < 100 else f"{name[:100]}…"
            raise SceneRejected(f"the mesh {self.path} refers to {shown!r}, which no file can be ({error})") from error
        if not path.is_relative_to(folder) or PureWindowsPath(name).is_absolute():
            raise SceneRejected(
                f"the mesh {self.path} refers to {name!r}, which is not in the folder {folder}; copy it there and name "
                "it by a relative path"
            )
        if not there:
            raise SceneRejected(f"the mesh {self.path} refers to {name!r}, but there is no file {path}; add it")
        return path


def list_scans(folder: Path, pattern: str, source: str = "") -> tuple[ScanRecord, ...]:
    """Return the mesh files below ``folder`` whose path in it matches ``pattern``, sorted by that path.

    DatasetError if a name cannot be printed, and, ending with ``source`` (where meshes are to be had), if the folder is
    missing or has none.
    """
    ending = f"; {source}" if source else ""
    if not folder.is_dir():
        raise DatasetError(f"geometry.scan_folder={folder}: there is no such folder{ending}")
    found = sorted(_below(folder), key=lambda record: record.name)
    chosen = tuple(record for record in found if fnmatch.fnmatchcase(record.name, pattern))
    if unprintable := next((record.name for record in chosen if not record.name.isprintable()), ""):
        raise DatasetError(
            f"geometry.scan_folder={folder}: the name {unprintable!r} has characters in it that cannot be printed; "
            "rename that file or folder"
        )
    if not chosen:
        others = f", only {len(found)} that geometry.scan_pattern={pattern} leaves out" if found else ending
        raise DatasetError(f"geometry.scan_folder={folder}: it has no {', '.join(MESH_SUFFIXES)} file{others}")
    return chosen


def _below(folder: Path) -> Iterator[ScanRecord]:
    for path in folder.absolute().rglob("*"):
        if path.suffix.lower() in MESH_SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield ScanRecord(path.relative_to(folder.absolute()).as_posix(), path)


def _loaded(trimesh: Any, content: bytes, kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return vertices and triangles of every part of a file that has faces; raises whatever its reader raises."""
    try:
        scene = trimesh.load_scene(io.BytesIO(content), file_type=kind, process=False, skip_materials=True)
    except ValueError as error:
        if "PLY is unexpected length" not in str(error):  # said also where triangles and larger faces are mixed
            raise
        parts = [read_mixed_ply(content)]
    else:
        parts = [(part.vertices, part.faces) for part in scene.dump() if hasattr(part, "faces")]
    return [(np.asarray(vertices, np.float64), np.asarray(faces)) for vertices, faces in parts if len(faces)]


def _names(pattern: re.Pattern[bytes], content: bytes) -> list[str]:
    return [match.decode("utf-8", "replace").strip() for match in pattern.findall(content)]


def _content(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise SceneRejected(f"{path} cannot be read ({error.strerror}); restore it") from None


def _trimesh() -> Any:
    """Return the module trimesh, imported only where meshes are read; EnvironmentProblem if it cannot be."""
    with importing(
        "geometry.layout=scan needs trimesh, which cannot be imported ({error}); install it with: "
        "pip install 'megasynth-attr[scan]'"
    ):
        import trimesh
    return trimesh
