"""Meshes in the layouts of published scans: y is up and the body faces +z, as scanners write them; metres.

::

    <name>/<name>.obj   with texture coordinates; its MTL file material0.mtl and material0.jpeg beside it
    <name>/<name>.ply   binary, with colours of vertices and about four times as many of them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

MATERIAL = "material0"
_PLY_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgba", "u1", 4)])
_PLY_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


@dataclass(frozen=True)
class TexturedMesh:
    """A triangle mesh with a texture. Vertices are metres, z up; ``uv``'s origin is the texture's lower left corner."""

    vertices: np.ndarray  # V×3
    faces: np.ndarray  # F×3 into vertices
    uv: np.ndarray  # T×2
    face_uv: np.ndarray  # F×3 into uv
    texture: np.ndarray  # H×W×3 uint8 sRGB

    def part(self, chosen: np.ndarray) -> TexturedMesh:
        """Return the mesh of the faces ``chosen`` (F bools), without vertices that none of them uses."""
        used, faces = np.unique(self.faces[chosen], return_inverse=True)
        used_uv, face_uv = np.unique(self.face_uv[chosen], return_inverse=True)
        shape = (-1, 3)
        return TexturedMesh(
            self.vertices[used], faces.reshape(shape), self.uv[used_uv], face_uv.reshape(shape), self.texture
        )


def write_obj(folder: Path, name: str, mesh: TexturedMesh) -> None:
    """Write ``<folder>/<name>.obj`` with its material and its picture; the folder must exist."""
    corners = np.stack([mesh.faces, mesh.face_uv], axis=-1).reshape(-1, 6) + 1  # OBJ counts from 1
    lines = [f"mtllib {MATERIAL}.mtl"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in _y_up(mesh.vertices).tolist()]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in mesh.uv.tolist()]
    lines.append(f"usemtl {MATERIAL}")
    lines += [f"f {a}/{s} {b}/{t} {c}/{u}" for a, s, b, t, c, u in corners.tolist()]
    (folder / f"{name}.obj").write_text("\n".join(lines) + "\n", encoding="ascii")
    material = f"newmtl {MATERIAL}\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd {MATERIAL}.jpeg\n"
    (folder / f"{MATERIAL}.mtl").write_text(material, encoding="ascii")
    Image.fromarray(mesh.texture).save(folder / f"{MATERIAL}.jpeg", quality=95)


def write_ply(folder: Path, name: str, mesh: TexturedMesh) -> None:
    """Write ``<folder>/<name>.ply``: every triangle split into four, so that colours of vertices can show the cloth."""
    from trimesh.remesh import subdivide  # comes with anny

    pairs, corners = np.unique(  # a vertex on a seam of the texture has several colours: one vertex for each
        np.stack([mesh.faces, mesh.face_uv], axis=-1).reshape(-1, 2), axis=0, return_inverse=True
    )
    attributes = {"uv": mesh.uv[pairs[:, 1]]}
    vertices, faces, more = subdivide(mesh.vertices[pairs[:, 0]], corners.reshape(-1, 3), vertex_attributes=attributes)
    height, width = mesh.texture.shape[:2]
    columns, rows = (more["uv"] * [1, -1] + [0, 1]).T
    at = np.clip(rows * height, 0, height - 1).astype(int), np.clip(columns * width, 0, width - 1).astype(int)
    points, polygons = np.empty(len(vertices), _PLY_VERTEX), np.empty(len(faces), _PLY_FACE)
    points["xyz"], points["rgba"][:, :3], points["rgba"][:, 3] = _y_up(vertices), mesh.texture[at], 255
    polygons["count"], polygons["corners"] = 3, faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {colour}" for colour in ("red", "green", "blue", "alpha")),
        f"element face {len(polygons)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    content = "\n".join(header).encode() + b"\n" + points.tobytes() + polygons.tobytes()
    (folder / f"{name}.ply").write_bytes(content)


def _y_up(vertices: np.ndarray) -> np.ndarray:
    return vertices[:, [0, 2, 1]] * [1, 1, -1]
