"""Bodies: the same for a seed, whole, textured, and read by another program as the published layouts are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from megasynth_attr.core.errors import ConfigError, ExitCode, run_main
from megasynth_train.bodies import __main__ as program
from megasynth_train.bodies.mesh_files import TexturedMesh, write_obj, write_ply
from megasynth_train.bodies.settings import BodySettings

trimesh = pytest.importorskip("trimesh")


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def square() -> TexturedMesh:
    """Two triangles in the plane y = 0, facing -y; the texture is red on the left and blue on the right."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:, :4, 0] = texture[:, 4:, 2] = 255
    return TexturedMesh(vertices, faces, vertices[:, [0, 2]], faces, texture)


def test_files_of_a_known_mesh(tmp_path: Path) -> None:
    for write in (write_obj, write_ply):
        write(tmp_path, "mesh", square())
    ply = trimesh.load(tmp_path / "mesh.ply", process=False)
    assert (len(ply.vertices), len(ply.faces)) == (9, 8)
    assert np.allclose(ply.face_normals, [0, 0, 1])  # from -y with z up to +z with y up
    assert ply.bounds.tolist() == [[0, 0, 0], [1, 1, 0]]
    reds = ply.visual.vertex_colors[:, 0]
    assert (reds[ply.vertices[:, 0] < 0.4] == 255).all() and (reds[ply.vertices[:, 0] > 0.6] == 0).all()
    obj = trimesh.load(tmp_path / "mesh.obj", process=False)
    assert np.allclose(obj.face_normals, [0, 0, 1]) and len(obj.faces) == 2
    left = obj.visual.uv[np.isclose(obj.vertices[:, 0], 0)]
    assert np.allclose(left[:, 0], 0) and obj.visual.material.image.size == (8, 8)
    part = square().part(np.array([False, True]))
    assert (len(part.vertices), part.faces.tolist()) == (3, [[0, 1, 2]])


@pytest.mark.proof  # anny unpacks its data first, which takes minutes
def test_bodies(tmp_path: Path) -> None:
    pytest.importorskip("anny")
    small = {"count": 2, "texture_px": 128}
    for name, more in {
        "two": {},
        "second": {"first": 1, "count": 1},
        "other": {"seed": 1, "count": 1},
        "ply": {"layout": "twok2k", "count": 1},
        "heads": {"layout": "heads", "count": 1},
    }.items():
        program.run(BodySettings(out=str(tmp_path / name), **{**small, **more}))
    both = hashes(tmp_path / "two")
    of_body = [(f"000{n}/000{n}.obj", f"000{n}/material0.mtl", f"000{n}/material0.jpeg") for n in (0, 1)]
    assert set(both) == {"bodies.json", *of_body[0], *of_body[1]}
    assert hashes(tmp_path / "second")["0001/0001.obj"] == both["0001/0001.obj"]  # whatever else is made
    assert hashes(tmp_path / "other")["0000/0000.obj"] != both["0000/0000.obj"]
    for name in ("0000", "0001"):
        mesh = trimesh.load(tmp_path / "two" / name / f"{name}.obj", process=False)
        _, height, depth = mesh.extents
        assert 1.4 < height < 2.1 and depth < height  # a standing adult, in metres
        low, high = (mesh.vertices[mesh.vertices[:, 1] < y].mean(axis=0) for y in (0.1 + mesh.bounds[0, 1], np.inf))
        assert low[2] > high[2] - 0.6  # its toes are not behind it
        assert ((mesh.visual.uv >= 0) & (mesh.visual.uv <= 1)).all()
        assert np.asarray(mesh.visual.material.image).std() > 10
        whole = trimesh.Trimesh(mesh.vertices, mesh.faces)  # vertices of seams merged
        assert whole.volume > 0.02  # faces look outwards
    ply = trimesh.load(tmp_path / "ply/00000/00000.ply", process=False)
    assert len(ply.vertices) > 50_000 and ply.visual.vertex_colors[:, :3].std() > 10
    head = trimesh.load(tmp_path / "heads/0000/0000.obj", process=False)
    assert 0.2 < head.extents[1] < 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "out= is missing"),
        (["layout=thumann"], "must be one of thuman, twok2k, heads"),
        (["count=0"], "count=0: must be at least 1"),
        (["first=9999", "count=2"], "reach beyond the last body, 9999"),
        (["texture_px=8"], "texture_px=8: must be at least 64"),
    ],
)
def test_bad_words(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*words, *([f"out={tmp_path / 'out'}"] if words else ["count=2"])]
    assert run_main(program.main, given) == ExitCode.USAGE
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"holds thesis\.tex, but no bodies\.json"):
        program.run(BodySettings(out=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
