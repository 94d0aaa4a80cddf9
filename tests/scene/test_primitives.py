"""Unit templates against analytic shapes: closed, right side out, true normals, uv that is not mirrored."""

import numpy as np
import pytest
import trimesh

from megasynth_attr.scene.primitives import CAPSULE_CAP, KINDS, TUBE_RADIUS, coarse_edges

VOLUMES = {
    "ellipsoid": 4 / 3 * np.pi,
    "cuboid": 8.0,
    "cylinder": 2 * np.pi,
    "cone": 2 / 3 * np.pi,
    "torus": 2 * np.pi * (1 - TUBE_RADIUS) * np.pi * TUBE_RADIUS,
    "capsule": 4 / 3 * np.pi * CAPSULE_CAP + 2 * np.pi * (1 - CAPSULE_CAP),
}


def joined(patches):
    """Vertices, triangles and per-triangle patch of a template, bit-equal vertices merged."""
    points = np.concatenate([p.points for p in patches])
    merged, inverse = np.unique(points + 0.0, axis=0, return_inverse=True)
    triangles, owner, start = [], [], 0
    for number, patch in enumerate(patches):
        for face in faces_of(patch):
            for k in range(1, len(face) - 1):
                triangles.append(inverse.ravel()[np.array([face[0], face[k], face[k + 1]]) + start])
                owner.append(number)
        start += len(patch.points)
    return trimesh.Trimesh(merged, np.array(triangles), process=False), np.array(owner)


def faces_of(patch):
    return np.split(patch.corner_vertices, np.cumsum(patch.face_sizes)[:-1])


@pytest.mark.parametrize("cells", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_closed_and_right_side_out(kind, cells):
    mesh, _ = joined(KINDS[kind].build(cells))
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.euler_number == (0 if kind == "torus" else 2)
    assert mesh.volume > 0
    assert np.abs(mesh.vertices).max() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_volume_is_that_of_the_shape(kind):
    mesh, _ = joined(KINDS[kind].build(24))
    assert mesh.volume == pytest.approx(VOLUMES[kind], rel=4e-3)
    assert np.allclose(mesh.bounds, [[-1, -1, -1], [1, 1, 1]], atol=1e-12)


def true_normal(kind, face, point):
    """Unit gradient of the implicit function of one face at a point on it."""
    x, y, z = point
    radius = np.hypot(x, y)
    if kind == "ellipsoid":
        gradient = point
    elif kind in ("cylinder", "cone") and face > 0:
        gradient = [0, 0, np.sign(z)]
    elif kind == "cylinder":
        gradient = [x, y, 0]
    elif kind == "cone":
        gradient = [x / radius, y / radius, 0.5] if radius > 0 else [0, 0, 1]
    elif kind == "torus":
        tube = (radius - (1 - TUBE_RADIUS)) / TUBE_RADIUS**2
        gradient = [tube * x / radius, tube * y / radius, z]
    elif kind == "capsule":
        above = np.sign(z) * max(abs(z) - (1 - CAPSULE_CAP), 0)
        gradient = [x, y, above / CAPSULE_CAP**2]
    else:
        gradient = np.eye(3)[face // 2] * (1 - 2 * (face % 2))
    return np.asarray(gradient) / np.linalg.norm(gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_normals_are_those_of_the_surface(kind):
    for face, patch in enumerate(KINDS[kind].build(5)):
        expected = np.array([true_normal(kind, face, p) for p in patch.points])
        assert np.allclose(patch.normals, expected, atol=1e-9)


@pytest.mark.parametrize("cells", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_uv_is_not_mirrored_and_covers_one_tile(kind, cells):
    for patch in KINDS[kind].build(cells):
        uv_faces = np.split(patch.uv, np.cumsum(patch.face_sizes)[:-1])
        for face, uv in zip(faces_of(patch), uv_faces, strict=True):
            corners = patch.points[face]
            area = sum(np.cross(corners[k] - corners[0], corners[k + 1] - corners[0]) for k in range(1, len(face) - 1))
            assert area @ patch.normals[face].mean(axis=0) > 0  # counter-clockwise seen from outside
            turned = np.roll(uv, -1, axis=0)
            assert (uv[:, 0] * turned[:, 1] - uv[:, 1] * turned[:, 0]).sum() > 1e-9
        assert patch.uv.min() == pytest.approx(0, abs=1e-12) and patch.uv.max() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("kind", "faces"), [("cuboid", (0, 1, 2, 3)), ("cylinder", (0,)), ("ellipsoid", (0,))])
def test_v_runs_up_where_a_face_has_an_up(kind, faces):
    for face in faces:
        patch = KINDS[kind].build(4)[face]
        height, v = patch.points[patch.corner_vertices, 2], patch.uv[:, 1]
        assert np.corrcoef(height, v)[0, 1] > 0.95
        assert (np.abs(v[np.abs(height - 1) < 1e-12] - 1) < 1e-12).all()


def test_poles_are_single_vertices_with_averaged_u():
    (patch,) = KINDS["ellipsoid"].build(3)
    assert (np.abs(patch.points[:, 2]) == 1).sum() == 2
    triangles = [f for f in faces_of(patch) if len(f) == 3]
    assert len(triangles) == 2 * 12
    uv = np.split(patch.uv, np.cumsum(patch.face_sizes)[:-1])
    for corners in (c for c in uv if len(c) == 3):
        u = np.sort(corners[:, 0])
        assert u[1] == pytest.approx((u[0] + u[2]) / 2)


@pytest.mark.parametrize(("kind", "edges"), [("cuboid", 108), ("ellipsoid", 132), ("torus", 144)])
def test_coarse_edges_come_once_each(kind, edges):
    pairs = coarse_edges(KINDS[kind].build(3))
    assert len(pairs) == edges  # cuboid 6·2·3·4 - 12·3; sphere 5 rings of 12 and 12 meridians of 6; torus 2·12·6
    assert len(np.unique(pairs, axis=0)) == edges and (pairs[:, 0] < pairs[:, 1]).all()
