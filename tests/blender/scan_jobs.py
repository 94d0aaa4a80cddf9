"""Mesh files written here, of a body without any symmetry, and what Blender is to do with them."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from analytic_scenes import AMBIENT, camera, look_at, scene, sun, texture
from blender_runtime import job
from PIL import Image

from megasynth_attr.scene.layouts.scan import geometry_of, upright
from megasynth_attr.scene.scans import ScanRecord
from megasynth_attr.scene.spec import Assets, Camera, Lighting, ScanRef, Scene, SlotMaterial, Texture

# sRGB bytes of the faces towards -x, +x, -y, +y, -z, +z of the world
COLOURS = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (200, 40, 200), (40, 200, 200)])
HALF = np.array([0.5, 0.4, 1.0])  # of the body, scene units
PLACE, UNIT = np.array([5.0, -3.0, 2.0]), 40.0  # where the file has it, in the world's axes, and its unit: any will do
AROUND = camera(
    look_at((4.0, -3.0, 2.4), (0, 0, 0)),
    look_at((-1.2, -0.4, -4.4), (0, 0, 0), up=(0, 1, 0)),
    fov_x_deg=47.3,
)
FACES = camera(*[look_at(tuple(6.0 * a), (0, 0, 0), up=(0, 0, 1) if a[2] == 0 else (0, 1, 0)) for a in
                 np.vstack([-np.eye(3), np.eye(3)])[[0, 3, 1, 4, 2, 5]]], fov_x_deg=25)  # fmt: skip
BOARD_HALF = np.array([0.1, 0.75, 1.0])
BOARD_FRONT = camera(look_at((4.0, 0, 0), (0, 0, 0)), fov_x_deg=float(2 * np.degrees(np.arctan(0.75 / 3.9))))
BODIES = {  # job → file, upward axis as the scene is told
    "scan_obj": ("body.obj", "usual"),
    "scan_obj_x": ("body_x.obj", "x"),
    "scan_ply": ("body.ply", "usual"),
    "scan_ply_y": ("body_y.ply", "y"),
    "scan_glb": ("body.glb", "usual"),
    "scan_glb_minus_x": ("body_minus_x.glb", "-x"),
}


def faces(half: np.ndarray) -> np.ndarray:
    """Return 6×4×3 corners of a box, counter-clockwise from outside, the first at the lower left; -x, +x, -y, …"""
    sides = []
    for axis in range(3):
        for sign in (-1, 1):
            normal, right = sign * np.eye(3)[axis], np.array([[0, sign, 0], [-sign, 0, 0], [1, 0, 0]])[axis]
            up = np.cross(normal, right)
            sides.append([(normal + a * right + b * up) * half for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    return np.array(sides)


def write_scans(folder: Path, letters: np.ndarray) -> dict[str, str]:
    """Write all mesh files and return their paths by name."""
    folder.mkdir()
    Image.fromarray(letters).save(folder / "letters.png")
    for name, up_axis in BODIES.values():
        file_from_world = upright(up_axis, name).as_matrix().T
        corners = (faces(HALF) * UNIT + PLACE) @ file_from_world.T
        {".obj": _write_obj, ".ply": _write_ply, ".glb": _write_glb}[Path(name).suffix](folder / name, corners)
    board = (faces(BOARD_HALF) @ upright("y", "").as_matrix()).reshape(-1, 3)
    lines = ["mtllib board.mtl", "usemtl picture", *(f"v {x} {y} {z}" for x, y, z in board)]
    lines += ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    lines += [f"f {4 * i + 1}/1 {4 * i + 2}/2 {4 * i + 3}/3 {4 * i + 4}/4" for i in range(6)]
    (folder / "board.obj").write_text("\n".join(lines) + "\n")
    (folder / "board.mtl").write_text("newmtl picture\nKd 1 1 1\nKs 0 0 0\nmap_Kd -s 1 1 1 letters.png\n")
    (folder / "unreadable.obj").write_text("\n".join(["mtllib unreadable.mtl", *lines[1:]]) + "\n")
    (folder / "unreadable.mtl").write_text("newmtl picture\nmap_Kd fake.png\n")
    (folder / "fake.png").write_bytes(b"this is no picture")
    shutil.copy(folder / "body.ply", folder / "changed.ply")
    ball = trimesh.creation.icosphere(5, 3.0)
    ball.apply_translation([7, 8, 9])
    normals = (ball.vertices - [7, 8, 9]) / 3
    with (folder / "ball.obj").open("w") as file:
        file.writelines(f"v {x:.9f} {y:.9f} {z:.9f}\n" for x, y, z in ball.vertices)
        file.writelines(f"vn {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in normals)
        file.writelines("f " + " ".join(f"{i + 1}//{i + 1}" for i in face) + "\n" for face in ball.faces)
    return {path.name: str(path) for path in folder.iterdir()}


def _write_obj(path: Path, corners: np.ndarray) -> None:
    """One material per face, no normals; colours of a material library are linear."""
    linear = ((COLOURS / 255 + 0.055) / 1.055) ** 2.4
    path.with_suffix(".mtl").write_text(
        "".join(f"newmtl m{i}\nKd {r:.6f} {g:.6f} {b:.6f}\nKs 0 0 0\n" for i, (r, g, b) in enumerate(linear))
    )
    lines = [f"mtllib {path.stem}.mtl", *(f"v {x} {y} {z}" for x, y, z in corners.reshape(-1, 3))]
    for i in range(6):
        lines += [f"usemtl m{i}", "f " + " ".join(str(4 * i + k) for k in range(1, 5))]
    path.write_text("\n".join(lines) + "\n")


def _write_ply(path: Path, corners: np.ndarray) -> None:
    """Vertex colours, sRGB bytes as all programs write them; with y up in binary, one face as two triangles."""
    sides = [[4 * i + k for k in range(4)] for i in range(6)]
    binary = path.stem == "body_y"
    if binary:
        sides[2:3] = [[8, 9, 10], [8, 10, 11]]
    head = f"ply\nformat {'binary_little_endian' if binary else 'ascii'} 1.0\nelement vertex 24\n"
    head += "".join(f"property float {c}\n" for c in "xyz")
    head += "".join(f"property uchar {c}\n" for c in ("red", "green", "blue"))
    head += f"element face {len(sides)}\nproperty list uchar int vertex_indices\nend_header\n"
    points = np.concatenate([corners.reshape(-1, 3), np.repeat(COLOURS, 4, axis=0)], axis=1)
    if binary:
        body = [struct.pack("<3f3B", *point[:3], *map(int, point[3:])) for point in points]
        body += [struct.pack(f"<B{len(side)}i", len(side), *side) for side in sides]
        path.write_bytes(head.encode() + b"".join(body))
        return
    rows = [f"{x:.7f} {y:.7f} {z:.7f} {r:.0f} {g:.0f} {b:.0f}" for x, y, z, r, g, b in points]
    rows += [f"{len(side)} {' '.join(map(str, side))}" for side in sides]
    path.write_text(head + "\n".join(rows) + "\n")


def _write_glb(path: Path, corners: np.ndarray) -> None:
    """Six nodes, each turned, moved and scaled back to its place, with a material of its own; a lamp and an empty."""
    linear = ((COLOURS / 255 + 0.055) / 1.055) ** 2.4
    whole = trimesh.Scene()
    for i, four in enumerate(corners):
        node = trimesh.transformations.rotation_matrix(0.3 + i, [1, 2, 3], [1, 0, 0])
        node[:3, :3] *= 1.5 + i
        local = trimesh.transform_points(four, np.linalg.inv(node))
        material = trimesh.visual.material.PBRMaterial(
            baseColorFactor=[*linear[i], 1.0], metallicFactor=0.0, roughnessFactor=1.0
        )
        mesh = trimesh.Trimesh(local, [[0, 1, 2], [0, 2, 3]], process=False)
        mesh.visual = trimesh.visual.TextureVisuals(uv=np.zeros((4, 2)), material=material)
        whole.add_geometry(mesh, transform=node)
    path.write_bytes(whole.export(file_type="glb"))


def scan_scene(
    path: str, up_axis: str = "usual", view: Camera = AROUND, look: Texture | None = None, light: Lighting = AMBIENT
) -> Scene:
    """Return the scene of a mesh file; with a texture given, it shows that instead of its own materials."""
    record = ScanRecord(Path(path).name, Path(path))
    outline = record.outline(own_materials=look is None)
    shape = geometry_of(outline, upright(up_axis, record.name), own_materials=look is None)
    return scene(replace(shape, scan=ScanRef(record.name, outline.sha256, "")), view, look, light)


def scan_jobs(folder: Path, assets: Assets, letters: np.ndarray) -> list[dict[str, Any]]:
    scans = write_scans(folder / "scans", letters)
    assets, layers = replace(assets, scans=scans), {"layers": "normal instance position"}
    body, bank = scans["body.obj"], texture(SlotMaterial("grey", None, None))
    lit = replace(AMBIENT, ambient_strength=0.1, suns=(sun((1, -1, 1)),))
    before = scan_scene(scans["changed.ply"])
    Path(scans["changed.ply"]).write_bytes(Path(scans["body_y.ply"]).read_bytes())
    pictured = texture(SlotMaterial("letters", None, None))
    lettered = replace(
        assets, materials=assets.materials | {"letters": assets.materials["grey"] | {"basecolor": scans["letters.png"]}}
    )
    return [
        *[job(name, scan_scene(scans[file], up), assets, **layers) for name, (file, up) in BODIES.items()],
        job("scan_again", scan_scene(body), assets, **layers),
        job("scan_board", scan_scene(scans["board.obj"], view=BOARD_FRONT), assets, (96, 128), samples=32),
        job("scan_ball", scan_scene(scans["ball.obj"], view=AROUND), assets, **layers),
        job("scan_ball_x", scan_scene(scans["ball.obj"], "x"), assets, **layers),
        job("scan_of_bank", scan_scene(body, look=bank), assets, **layers),
        job("scan_of_bank_ply", scan_scene(scans["body.ply"], look=bank), assets, **layers),
        job("scan_letters", scan_scene(scans["body.ply"], view=FACES, look=pictured), lettered, samples=16),
        job("scan_lit", scan_scene(body, light=lit), assets, **layers),
        job("scan_changed", before, assets),
        job("scan_missing", scan_scene(body), replace(assets, scans={})),
        job("scan_gone", scan_scene(body), replace(assets, scans={"body.obj": str(folder / "gone.obj")})),
        job("scan_unreadable", scan_scene(scans["unreadable.obj"]), assets),
        job("scan_after_errors", scan_scene(body), assets, **layers),
    ]
