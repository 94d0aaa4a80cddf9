"""Meshes from scene files: closed whatever the heights, displaced along true normals, filling their boxes."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import make_interp_spline
from scipy.spatial.transform import Rotation

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.scene.factors.geometry import GeometrySettings, sample_clear_of
from megasynth_attr.scene.mesh import build_meshes
from megasynth_attr.scene.primitives import KINDS
from megasynth_attr.scene.spec import Box, Geometry, Primitive, Scene, scene_from_json, scene_to_json


def one(kind, rng, *, height=0.2, tessellation=6, flat=0.2, size=(3.0, 4.0, 5.0), **fields):
    """A geometry with one primitive that fills one box."""
    heights = [
        () if rng.random() < flat else rounded(rng.uniform(-height, height, 25)) for _ in range(KINDS[kind].faces)
    ]
    primitive = Primitive(
        kind=kind,
        box=0,
        half_axes=rounded(rng.uniform(0.25, 2, 3)),
        rotation_xyzw=rounded(Rotation.from_rotvec(rng.normal(size=3)).as_quat()),
        translation=rounded(rng.normal(size=3)),
        heights=tuple(heights),
        wireframe=False,
        surface="material",
        slot=0,
    )
    return Geometry(
        layout="objects",
        extent=(10.0, 10.0, 10.0),
        boxes=(Box("large", (1.0, 2.0, 3.0), size),),
        primitives=(replace(primitive, **fields),),
        window=None,
        tessellation=tessellation,
        scale=rounded(2 / max(size)),
        centre=(1.0, 2.0, 3.0),
        dropped_boxes=0,
        attempts=1,
    )


def as_trimesh(mesh):
    """The mesh in triangles; vertices are merged only where all bits agree."""
    merged, inverse = np.unique(mesh.vertices + np.float32(0), axis=0, return_inverse=True)
    starts = np.cumsum(mesh.face_sizes) - mesh.face_sizes
    quads = starts[mesh.face_sizes == 4]
    index = np.concatenate([starts[:, None] + [0, 1, 2], quads[:, None] + [0, 2, 3]])
    return trimesh.Trimesh(merged, inverse.ravel()[mesh.corner_vertices[index]], process=False)


def signed_uv_areas(mesh):
    areas = []
    for uv in np.split(mesh.uv.astype(np.float64), np.cumsum(mesh.face_sizes)[:-1]):
        turned = np.roll(uv, -1, axis=0)
        areas.append((uv[:, 0] * turned[:, 1] - uv[:, 1] * turned[:, 0]).sum() / 2)
    return np.array(areas)


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 2**32 - 1), cells=st.integers(2, 9))
def test_closed_for_any_heights(kind, seed, cells):
    geometry = one(kind, np.random.default_rng(seed), height=1.0, tessellation=cells)
    (mesh,) = build_meshes(geometry, None)
    closed = as_trimesh(mesh)
    assert closed.is_watertight and closed.is_winding_consistent
    assert closed.euler_number == (0 if kind == "torus" else 2)
    assert np.isfinite(mesh.vertices).all() and np.isfinite(mesh.uv).all()
    assert mesh.vertices.dtype == mesh.uv.dtype == np.float32
    assert mesh.corner_vertices.dtype == mesh.face_sizes.dtype == np.int32
    assert mesh.face_sizes.sum() == len(mesh.corner_vertices) == len(mesh.uv)


@pytest.mark.parametrize("kind", KINDS)
def test_volume_is_positive_where_the_surface_does_not_cross_itself(kind):
    for seed in range(5):
        (mesh,) = build_meshes(one(kind, np.random.default_rng(seed), height=0.05, tessellation=8), None)
        assert as_trimesh(mesh).volume > 0


def height_oracle(heights, v, u):
    """Height on a surface that is open along v and periodic along u, by B-splines."""
    flat_end = ([(1, 0.0)], [(1, 0.0)])
    rows = [
        make_interp_spline(np.arange(6) / 5, [*row, row[0]], k=3, bc_type="periodic")(u)
        for row in np.reshape(heights, (5, 5))
    ]
    return make_interp_spline(np.arange(7) / 6, [0, *rows, 0], k=3, bc_type=flat_end)(v)


def test_an_ellipsoid_is_displaced_along_its_analytic_normal_then_posed_and_stretched():
    geometry = one("ellipsoid", np.random.default_rng(3), height=0.5, flat=0.0, tessellation=2)
    primitive, box = geometry.primitives[0], geometry.boxes[0]
    axes = np.array(primitive.half_axes)
    points = []
    for sphere in KINDS["ellipsoid"].build(2)[0].points:
        latitude, longitude = np.arcsin(np.clip(sphere[2], -1, 1)), np.arctan2(sphere[1], sphere[0])
        u, v = ((longitude + np.pi / 4) / (2 * np.pi)) % 1, latitude / np.pi + 0.5
        normal = sphere / axes  # gradient of x²/a² + y²/b² + z²/c² at sphere · axes, up to a factor
        normal /= np.linalg.norm(normal)
        local = sphere * axes + height_oracle(primitive.heights[0], v, u) * normal
        points.append(Rotation.from_quat(primitive.rotation_xyzw).apply(local) + primitive.translation)
    points = np.array(points)
    low, high = points.min(axis=0), points.max(axis=0)
    in_box = (points - (low + high) / 2) / (high - low) * box.size + box.centre
    expected = (in_box - geometry.centre) * geometry.scale
    (mesh,) = build_meshes(geometry, None)
    assert np.allclose(mesh.vertices, expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_uv_is_not_mirrored(kind):
    for tiles_per_unit in (None, 3.0):
        (mesh,) = build_meshes(one(kind, np.random.default_rng(7), height=0.3), tiles_per_unit)
        assert (signed_uv_areas(mesh) > 0).all()


def test_metric_uv_has_constant_density_and_whole_tiles_around():
    rng, tiles_per_unit = np.random.default_rng(0), 5.0
    geometry = one("cylinder", rng, flat=1.0, tessellation=24, size=(2.0, 2.0, 4.0), rotation_xyzw=(0.0, 0.0, 0.0, 1.0))
    (mesh,) = build_meshes(geometry, tiles_per_unit)  # radius 0.5, height 2 scene units
    sides = 4 * 24 * 24
    side = mesh.uv[: 4 * sides]
    around = np.pi * tiles_per_unit
    assert side[:, 0].max() == round(around) and side[:, 1].max() == pytest.approx(2 * tiles_per_unit, rel=1e-5)
    cap = mesh.uv[4 * sides : 4 * sides + 4 * 24 * 24]
    assert np.allclose(np.ptp(cap, axis=0), tiles_per_unit, rtol=1e-3)  # diameter 1


def test_the_boxes_are_filled_exactly():
    geometry = sample_clear_of(np.random.default_rng(5), GeometrySettings(layout="room", tessellation=8), None, 0.1)
    meshes = build_meshes(geometry, None)
    for index, box in enumerate(geometry.boxes):
        members = [k for k, p in enumerate(geometry.primitives) if p.box == index]
        vertices = np.concatenate([meshes[k].vertices for k in members])
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        centre = (np.array(box.centre) - geometry.centre) * geometry.scale
        half = np.array(box.size) * geometry.scale / 2
        slack = geometry.strut_width * geometry.scale if geometry.primitives[members[0]].wireframe else 2e-6
        assert (low >= centre - half - 2e-6).all() and (high <= centre + half + 2e-6).all()
        assert (low <= centre - half + slack).all() and (high >= centre + half - slack).all()


def test_wireframes_are_closed_struts():
    geometry = one("cuboid", np.random.default_rng(2), wireframe=True, tessellation=30)
    (mesh,) = build_meshes(geometry, 4.0)
    (finer,) = build_meshes(replace(geometry, tessellation=60), 4.0)
    assert np.array_equal(mesh.vertices, finer.vertices)  # struts do not depend on the tessellation
    assert len(mesh.face_sizes) == 108 * 6
    assert (signed_uv_areas(mesh) > 0).all()
    for start in (0, 24 * 50, 24 * 107):
        vertices = mesh.vertices[start : start + 24]
        bar = trimesh.Trimesh(*trimesh_box(vertices, mesh, start), process=False)
        assert bar.is_watertight and bar.volume > 0
        smallest = np.sort(bar.bounding_box_oriented.primitive.extents)
        assert smallest[:2] == pytest.approx([geometry.strut_width * geometry.scale] * 2, rel=1e-3)


def trimesh_box(vertices, mesh, start):
    merged, inverse = np.unique(vertices, axis=0, return_inverse=True)
    quads = mesh.corner_vertices[start : start + 24].reshape(6, 4) - start
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return merged, inverse.ravel()[triangles]


def test_the_picture_fills_the_front_upright_and_unmirrored():
    geometry = sample_clear_of(np.random.default_rng(0), GeometrySettings(layout="plane"), None, 0.1)
    (index,) = [k for k, p in enumerate(geometry.primitives) if p.surface == "picture"]
    mesh = build_meshes(geometry, 7.0)[index]
    corners, uv = mesh.vertices[mesh.corner_vertices].astype(np.float64), mesh.uv
    front = corners[:, 0] == corners[:, 0].max()
    faces = front.reshape(-1, 4).all(axis=1).repeat(4)
    # seen from +x with z up, right is +y
    right = (corners[faces, 1] - corners[:, 1].min()) / np.ptp(corners[:, 1])
    up = (corners[faces, 2] - corners[:, 2].min()) / np.ptp(corners[:, 2])
    assert faces.sum() == 4
    assert np.allclose(uv[faces], np.stack([right, up], axis=-1), atol=1e-6)
    width, height = np.ptp(corners[:, 1]), np.ptp(corners[:, 2])
    assert width / height == pytest.approx(3 / 4, rel=1e-5)


def test_the_texture_continues_across_the_pieces_of_a_wall():
    settings_ = GeometrySettings(layout="room", window_probability=1.0, tessellation=4)
    geometry = sample_clear_of(np.random.default_rng(1), settings_, None, 0.1)
    meshes, tiles = build_meshes(geometry, 3.0), 3.0
    sides = [k for k, p in enumerate(geometry.primitives) if geometry.boxes[p.box].kind == "side"]
    wall = [k for k in sides if geometry.primitives[k].slot == geometry.primitives[sides[-1]].slot]
    assert len(wall) == 4
    for k in wall:
        corners, uv = meshes[k].vertices[meshes[k].corner_vertices], meshes[k].uv
        assert np.allclose(uv[:16, 1], corners[:16, 2] * tiles, atol=1e-4)  # side faces: v is the height in the scene
        assert np.allclose(uv[:4, 0], corners[:4, 1] * tiles, atol=1e-4)  # +x face: u is y
        assert np.allclose(uv[12:16, 0], corners[12:16, 0] * tiles, atol=1e-4)  # -y face: u is x


@pytest.mark.parametrize("layout", ["room", "objects", "plane"])
def test_the_json_round_trip_reproduces_meshes_bit_for_bit(layout):
    for seed in range(2):
        geometry = sample_clear_of(
            np.random.default_rng(seed), GeometrySettings(layout=layout, tessellation=6), None, 0.1
        )
        scene = Scene("geometry", 0, seed, 0, 0, {"geometry": geometry})
        read = scene_from_json(scene_to_json(scene)).factors["geometry"]
        assert read == geometry
        for ours, theirs in zip(build_meshes(geometry, 2.5), build_meshes(read, 2.5), strict=True):
            for name in ("vertices", "corner_vertices", "face_sizes", "uv"):
                assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()


def test_damaged_primitives_are_refused():
    geometry = one("cylinder", np.random.default_rng(0))
    for wrong in (replace(geometry.primitives[0], kind="teapot"), replace(geometry.primitives[0], heights=((),))):
        with pytest.raises(DatasetError, match=r"teapot|faces"):
            build_meshes(replace(geometry, primitives=(wrong,)), None)
