"""Mesh files before Blender sees them: which there are, what belongs to them, where they stand, who shows them."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem, SceneRejected
from megasynth_attr.farm.library import open_library
from megasynth_attr.scene.config import resolve
from megasynth_attr.scene.layouts.scan import file_rotation, geometry_of, to_scene, upright
from megasynth_attr.scene.sample import sample_scene
from megasynth_attr.scene.scans import Outline, ScanRecord, list_scans
from megasynth_attr.scene.spec import Scene, diff, scene_from_json, scene_to_json

WEDGE = Path(__file__).resolve().parents[1] / "golden" / "meshes" / "wedge.obj"  # y up, 1 × 2 × 0.5
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0.5\n"


def write(folder: Path, **files: str | bytes) -> Path:
    """Write files (``a__obj`` is a.obj) into ``folder`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def textured(folder: Path, texture: str = "skin.png", maps: str = "map_Kd") -> ScanRecord:
    write(folder, body__obj="mtllib my body.mtl\nusemtl a\n" + TRIANGLE + "f 1 2 3\n", skin__png=b"pixels")
    (folder / "my body.mtl").write_text(f"newmtl a\nKd 1 1 1\n{maps} {texture}\n")
    return ScanRecord("body.obj", folder / "body.obj")


def scenes(folder: Path, *words: str, dataset: int = 0, count: int = 4) -> list[Scene]:
    given = ("preset=scan", f"geometry.scan_folder={folder}", "frames=2", "texture.bank_size_px=16")
    config = resolve([*given, f"scene_count={count}", *words])
    library = open_library(config.members[0], folder / "cache")
    return [sample_scene(config.members[0], dataset, index, library.records) for index in range(count)]


def shown(drawn: list[Scene]) -> list[str]:
    return [scene.factors["geometry"].scan.name for scene in drawn]


@pytest.fixture
def six(tmp_path: Path) -> Path:
    """Six meshes, two of them of one name, and files that are none."""
    folder = tmp_path / "meshes"
    for name in ("b/x.obj", "a/x.obj", "c.OBJ", "a/x.ply", "d 1/é.obj", "z.obj"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        source = WEDGE.with_suffix(".ply") if name.endswith("ply") else WEDGE
        (folder / name).write_bytes(source.read_bytes())
    write(folder, notes__txt="", __hidden__obj="")
    return folder


NAMES = ["a/x.obj", "a/x.ply", "b/x.obj", "c.OBJ", "d 1/é.obj", "z.obj"]


def test_meshes_are_found_at_any_depth_and_sorted(six: Path) -> None:
    assert [record.name for record in list_scans(six, "*")] == NAMES
    assert [record.name for record in list_scans(six, "a/*")] == NAMES[:2]
    assert [record.name for record in list_scans(six, "*.ply")] == ["a/x.ply"]


def test_scenes_take_the_meshes_in_turn_whatever_the_seed(six: Path) -> None:
    assert shown(scenes(six, count=6)) == NAMES == shown(scenes(six, "seed=5", count=6))
    again = scenes(six, "camera.scope=scene", count=8)
    assert shown(again) == NAMES + NAMES[:2]
    assert diff(again[0], again[6]) == {"camera"}


def test_a_mesh_that_stays_and_one_that_changes(six: Path) -> None:
    """Geometry is isolated like any factor: the same for a dataset, other meshes for other datasets and variants."""
    fixed = ("geometry.scope=dataset", "lighting.scope=scene", "dataset_count=9")
    assert set(shown(scenes(six, *fixed))) == {"a/x.obj"}
    assert set(shown(scenes(six, *fixed, dataset=7))) == {"a/x.ply"}
    first, second = scenes(six, *fixed, count=2)
    assert diff(first, second) == {"lighting"}
    assert shown(scenes(six, *fixed, "geometry.variants=2", dataset=1)) == ["b/x.obj", "c.OBJ"] * 2
    assert set(shown(scenes(six, "geometry.scope=experiment", "camera.scope=scene", dataset=0))) == {"a/x.obj"}
    first, second = scenes(six, count=2)
    assert diff(first, second) == {"geometry"}


@pytest.mark.parametrize(("test", "last"), [("2", NAMES[4:]), ("a/*", NAMES[:2])])
def test_a_divided_folder(six: Path, test: str, last: list[str]) -> None:
    words = (f"geometry.scan_test={test}", "dataset_count=2", "scenes=0-1")
    train, held_out = scenes(six, *words), scenes(six, *words, dataset=1, count=2)
    assert shown(held_out) == last and shown(train) == [name for name in NAMES if name not in last]
    assert {s.factors["geometry"].scan.split for s in train} == {"train"}
    assert {s.factors["geometry"].scan.split for s in held_out} == {"test"}
    with pytest.raises(ConfigError, match="there are two datasets"):
        scenes(six, *words, "dataset_count=3", "datasets=0", dataset=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("scene_count=7",), "dataset 0 has only 6 meshes, one a scene; set scene_count=6 or scenes=0-5"),
        (("geometry.scan_test=6", "scene_count=2"), "of 6 meshes, none is left for training"),
        (("geometry.scan_test=9", "scene_count=2", "datasets=0"), "of 6 meshes, none is left for training"),
        (("geometry.scan_test=no/*", "scene_count=2", "dataset_count=2"), "of 6 meshes, none is left for testing"),
        (("geometry.scan_pattern=*.stl",), r"no .obj, .ply, .glb file, only 6 that geometry.scan_pattern=\*.stl"),
        (("geometry.scan_pattern=../*",), "only 6 that geometry.scan_pattern"),
        (("texture.scope=scene",), "have no texture to vary; set texture.scan_materials=bank"),
        (("camera.family=micro",), "does not fit geometry.layout=scan"),
        (("camera.family=room", "camera.scope=scene"), "does not fit geometry.layout=scan"),
    ],
)
def test_words_that_cannot_work(six: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises((ConfigError, DatasetError), match=said):
        scenes(six, *words)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"geometry.scan_folder= is missing"):
        resolve(["preset=scan"])
    with pytest.raises(DatasetError, match="there is no such folder; ask the authors"):
        list_scans(tmp_path / "nowhere", "*", "ask the authors")
    with pytest.raises(DatasetError, match=r"it has no \.obj, \.ply, \.glb file; ask the authors"):
        list_scans(write(tmp_path / "empty", page__html="<html>sign in"), "*", "ask the authors")


@pytest.mark.parametrize("preset", ["thuman", "twok2k"])
def test_who_has_the_real_scans_is_said(preset: str, tmp_path: Path) -> None:
    for words in ([], [f"geometry.scan_folder={tmp_path / 'nowhere'}"]):
        with pytest.raises((ConfigError, DatasetError), match=r"by the form at https://\S+, and must not be passed on"):
            open_library(resolve([f"preset={preset}", *words]).members[0], tmp_path)


@pytest.mark.parametrize("axis", ["x", "y", "z", "-x", "-y", "-z"])
def test_any_axis_may_point_up(axis: str) -> None:
    """The box touches ±1 on its longest axis, is centred, keeps its handedness, and the named axis becomes +z."""
    outline = Outline("", (-3.0, 10.0, 0.25), (1.0, 11.0, 2.25), 2.5)
    geometry = geometry_of(outline, upright(axis, ""), own_materials=True)
    corners = np.array(np.meshgrid(*zip(outline.low, outline.high, strict=True))).reshape(3, -1).T
    placed = to_scene(corners, geometry)
    assert np.abs(placed.max(axis=0) + placed.min(axis=0)).max() < 1e-12 and abs(np.abs(placed).max() - 1) < 1e-12
    turned = file_rotation(geometry)
    assert set(np.unique(turned)) <= {-1, 0, 1} and np.linalg.det(turned) == pytest.approx(1)
    upward = np.eye(3)["xyz".index(axis[-1])] * (-1 if axis[0] == "-" else 1)
    assert (turned @ upward == [0, 0, 1]).all()
    assert upright("usual", "a.ply").magnitude() == 0
    assert (upright("usual", "b/a.OBJ").as_matrix().round() == upright("y", "").as_matrix().round()).all()


def test_a_scene_file_knows_its_mesh(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", wedge__obj=WEDGE.read_bytes())
    (scene,) = scenes(folder, count=1)
    assert str(tmp_path) not in scene_to_json(scene)
    assert scene_from_json(scene_to_json(scene)) == scene
    geometry = scene.factors["geometry"]
    np.testing.assert_allclose(geometry.boxes[0].size, (1, 0.5, 2), atol=1e-12)  # y is up in the file
    (folder / "wedge.obj").write_text(WEDGE.read_text() + "# a comment\n")
    assert diff(scene, scenes(folder, count=1)[0]) == {"geometry"}


@pytest.mark.parametrize(
    "maps", ["map_Kd", "map_kd -s 1 1 1 -o 0.5", "bump -bm 0.2", "map_Bump -bm 1 -clamp on", "norm"]
)
def test_materials_and_textures_belong_to_a_mesh(tmp_path: Path, maps: str) -> None:
    record = textured(tmp_path / "m", maps=maps)
    assert {path.name for path in record.material_files().values()} == {"my body.mtl", "skin.png"}
    own, bare = record.sha256(own_materials=True), record.sha256(own_materials=False)
    (tmp_path / "m" / "skin.png").write_bytes(b"other pixels")
    assert record.sha256(own_materials=True) != own and record.sha256(own_materials=False) == bare


def test_textures_that_blender_does_not_read_are_not_asked_for(tmp_path: Path) -> None:
    record = textured(tmp_path / "m", "nowhere.png", maps="map_Ka")
    assert list(record.material_files()) == ["my body.mtl"]


@pytest.mark.parametrize(
    ("texture", "said"),
    [
        ("nowhere.png", r"body\.obj refers to 'nowhere\.png', but there is no file"),
        ("../secret.png", "which is not in the folder"),
        ("/etc/hostname", "which is not in the folder"),
        ("C:\\\\pictures\\\\skin.png", "which is not in the folder"),
        ("..\\\\secret.png", "which is not in the folder"),
        ("a" * 5000, r"refers to 'a{100}…', which no file can be"),
        ("skin\0.png", "which no file can be"),
        ("circle.png", "which no file can be"),
    ],
)
def test_textures_elsewhere_are_refused(tmp_path: Path, texture: str, said: str) -> None:
    record = textured(tmp_path / "m", texture)
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "m" / "circle.png").symlink_to("circle.png")
    with pytest.raises(SceneRejected, match=said):
        record.outline(own_materials=True)
    assert record.outline(own_materials=False).high == (1.0, 1.0, 0.5)  # a bank's material asks for no texture


def test_textures_beside_the_meshs_folder_are_in_the_users_folder(tmp_path: Path) -> None:
    textured(tmp_path / "m" / "one", "../shared/skin.png")
    write(tmp_path / "m" / "shared", skin__png=b"pixels")
    assert len(ScanRecord("one/body.obj", tmp_path / "m" / "one" / "body.obj").material_files()) == 2


PLY = "ply\nformat {}\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nelement face {}\n"
PLY += "property list uchar int vertex_indices\nend_header\n"
MIXED = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4").tobytes()
MIXED += struct.pack("<B4iB3i", 4, *range(4), 3, *range(3))
NEGATIVE = PLY.replace("uchar", "char").format("binary_little_endian 1.0", 4, 2).encode()
NEGATIVE += MIXED[:48] + struct.pack("<b4ib", 4, *range(4), -1)


def glb(**record: object) -> bytes:
    """Return a GLB file of one triangle with these entries of its record."""
    whole = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "scene": 0,
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "buffers": [{"byteLength": 36}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
    }
    text = json.dumps(whole | record).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", 36, 0x004E4942)
    body += np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


BROKEN: dict[str, tuple[str, bytes | str, str]] = {
    "garbage obj": (".obj", b"\x89PNG\r\n not a mesh", "no faces"),
    "garbage ply": (".ply", b"sign in to download", "cannot be read"),
    "garbage glb": (".glb", b"<html>403</html>" * 9, "is no GLB file"),
    "empty": (".glb", b"", "is no GLB file"),
    "no faces": (".obj", TRIANGLE, "no faces"),
    "points": (".ply", PLY.format("ascii 1.0", 3, 0) + "0 0 0\n1 0 0\n0 1 0\n", "no faces"),
    "no such vertex": (".obj", TRIANGLE + "f 1 2 9\n", "cannot be read"),
    "vertex 0": (".obj", TRIANGLE + "f 1 2 3\nf 0 2 3\n", "vertices that do not exist"),
    "vertex -1": (".ply", PLY.format("ascii 1.0", 3, 1) + "0 0 0\n1 0 0\n0 1 0\n3 0 1 -1\n", "do not exist"),
    "nan": (".obj", TRIANGLE.replace("0.5", "nan") + "f 1 2 3\n", "not finite"),
    "infinite": (".obj", TRIANGLE.replace("0.5", "1e400") + "f 1 2 3\n", "not finite"),
    "huge": (".obj", TRIANGLE.replace("0.5", "1e30") + "f 1 2 3\n", "1e.30 long; scale it"),
    "tiny": (".obj", "v 0 0 0\nv 1e-9 0 0\nv 0 1e-9 0\nf 1 2 3\n", "1e-09 long; scale it"),
    "a point": (".obj", "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "0 long; scale it"),
    "far": (".obj", "v 5e6 0 0\nv 5000001 0 0\nv 5e6 1 0\nf 1 2 3\n", "too far for 32-bit numbers"),
    "lies about its size": (".ply", PLY.format("binary_little_endian 1.0", 10**12, 1), "cannot be read"),
    "cut off": (".ply", PLY.format("binary_little_endian 1.0", 4, 2).encode() + MIXED[:-1], "cannot be read"),
    "goes on": (".ply", PLY.format("binary_little_endian 1.0", 4, 2).encode() + MIXED + b"x", "longer than its header"),
    "negative corners": (".ply", NEGATIVE, "negative number of corners"),
    "number for a name": (".glb", glb(images=[{"uri": 5}]), "is no GLB file"),
    "outer buffer": (".glb", glb(buffers=[{"byteLength": 36, "uri": "b.bin"}]), "export it as one .glb"),
    "no materials": (".obj", "mtllib gone.mtl\n" + TRIANGLE + "f 1 2 3\n", "refers to 'gone.mtl'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_mesh_names_itself(tmp_path: Path, case: str) -> None:
    suffix, content, said = BROKEN[case]
    name = "some body" + suffix
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SceneRejected, match=f"some body.*{said}"):
        ScanRecord(name, tmp_path / name).outline(own_materials=True)


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_binary_ply_of_triangles_and_larger_faces(tmp_path: Path, order: str) -> None:
    """As some programs write it, with colours, other properties and edges: the surface is that of the same file as
    text, which trimesh reads, and of a pentagon its area.
    """
    sign, corners = "<" if order == "little" else ">", [[0, 1, 2, 3], [0, 1, 4], [1, 2, 4]]
    points = np.array([[0, 0, 0], [2, 0, 0], [2, 3, 0], [0, 3, 0], [1, 1, 5]])
    head = "ply\nformat {}\ncomment element face 7\nelement vertex 5\nproperty double x\nproperty double y\n"
    head += "property double z\nproperty uchar red\nelement face {}\nproperty uchar flag\n"
    head += "property list uchar uint vertex_index\nproperty list uchar float texcoord\nelement edge 1\n"
    head += "property int vertex1\nproperty int vertex2\nend_header\n"
    text = PLY.format("ascii 1.0", 5, 3) + "".join(f"{x} {y} {z}\n" for x, y, z in points)
    text += "".join(f"{len(face)} {' '.join(map(str, face))}\n" for face in corners)
    (tmp_path / "text.ply").write_text(text)

    def write(name: str, faces: list[list[int]]) -> ScanRecord:
        body = b"".join(struct.pack(f"{sign}3dB", *point, 9) for point in points.tolist())
        for face in faces:
            body += struct.pack(f"{sign}BB{len(face)}IB2f", 1, len(face), *face, 2, 0.5, 0.25)
        content = head.format(f"binary_{order}_endian 1.0", len(faces)).replace("\n", "\r\n" * (order == "big") or "\n")
        (tmp_path / name).write_bytes(content.encode() + body + struct.pack(f"{sign}2i", 0, 1))
        return ScanRecord(name, tmp_path / name)

    mixed, told = write("mixed.ply", corners), ScanRecord("text.ply", tmp_path / "text.ply")
    found, expected = ({tuple(sorted(map(tuple, t))) for t in one.triangles().tolist()} for one in (mixed, told))
    assert found == expected and len(found) == 4
    outline = mixed.outline(own_materials=True)
    assert (outline.low, outline.high) == ((0, 0, 0), (2, 3, 5))
    a, b, c = write("pentagon.ply", [[0, 1, 2, 4, 3], [0, 1, 4]]).triangles()[1:].swapaxes(0, 1)
    assert len(a) == 3
    flat = np.cross(b - a, c - a)[:, 2].sum() / 2  # as seen from above: the corner 4 is inside the square
    assert flat == pytest.approx(6 - 2)


def test_names_that_cannot_be_printed_are_refused(six: Path) -> None:
    (six / "two\nlines.obj").write_bytes(WEDGE.read_bytes())
    with pytest.raises(
        DatasetError, match=r"the name 'two\\nlines\.obj' has characters in it that cannot be printed; rename"
    ):
        list_scans(six, "*")
    assert [record.name for record in list_scans(six, "a/*")] == NAMES[:2]


def test_without_trimesh_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'megasynth-attr\[scan\]'"):
        ScanRecord("wedge.obj", WEDGE).outline(own_materials=True)


def test_cameras_keep_clear_of_corners(tmp_path: Path) -> None:
    """A cube's corners reach √3; a ball's surface 1, though its box is the same."""
    import trimesh

    folder = write(tmp_path / "m")
    trimesh.creation.icosphere(2).export(folder / "ball.ply")
    near = ("camera.distance=[0.61,0.7]", "scene_count=1")
    scenes(folder, *near, count=1)
    (folder / "ball.ply").unlink()
    trimesh.creation.box().export(folder / "cube.ply")
    with pytest.raises(SceneRejected, match=r"cube\.ply reaches 1\.732 scene units from the centre"):
        scenes(folder, *near, count=1)


def test_the_surface_is_described_where_it_stands(tmp_path: Path) -> None:
    """The isolation matrix compares points of the surface, in scene units."""
    import trimesh

    from megasynth_attr.scene.factor import Records
    from megasynth_attr.scene.factors.geometry import describe

    folder = write(tmp_path / "m")
    ball = trimesh.creation.icosphere(4, 30)
    ball.apply_translation([100, 0, 50]).export(folder / "ball.ply")
    (scene,) = scenes(folder, "scene_count=1", count=1)
    scans = {record.name: record for record in list_scans(folder, "*")}
    points = describe(scene.factors["geometry"], Records({}, {}, {}, scans))
    radius = np.linalg.norm(points, axis=1)
    assert (
        len(points) == 512
        and radius.min() > 0.99
        and radius.max() < 1.0001
        and np.abs(points.mean(axis=0)).max() < 0.05
    )
