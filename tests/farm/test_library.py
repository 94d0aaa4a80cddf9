"""Materials, pictures and HDRIs that scenes refer to by name: reading them, and refusing what is broken."""

import struct

import numpy as np
import pytest

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.exr import encode_exr
from megasynth_attr.farm.library import list_hdris, open_library
from megasynth_attr.scene.config import resolve
from megasynth_attr.scene.sample import sample_scene
from megasynth_attr.textures.radiance import read_hdr


def rgbe(radiance):
    """Encode H×W×3 radiance as shared-exponent bytes, straight from the definition, pixel by pixel."""
    out = np.zeros((*radiance.shape[:2], 4), np.uint8)
    for y, x in np.ndindex(radiance.shape[:2]):
        peak = radiance[y, x].max()
        if peak > 1e-32:
            mantissa, exponent = np.frexp(peak)
            out[y, x, :3] = (radiance[y, x] * mantissa * 256 / peak).astype(np.uint8)
            out[y, x, 3] = exponent + 128
    return out


def run_length(row):
    """Encode one channel of a scanline: runs of three or more as (128 + n, value), the rest literally."""
    out, i = bytearray(), 0
    while i < len(row):
        n = 1
        while i + n < len(row) and n < 127 and row[i + n] == row[i]:
            n += 1
        out += bytes([128 + n, row[i]]) if n >= 3 else bytes([1, row[i]])
        i += n if n >= 3 else 1
    return bytes(out)


def hdr_bytes(pixels, coded):
    height, width = pixels.shape[:2]
    head = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n".encode()
    if not coded:
        return head + pixels.tobytes()
    marker = b"\x02\x02" + struct.pack(">H", width)
    return head + b"".join(marker + b"".join(run_length(row[:, c].tolist()) for c in range(4)) for row in pixels)


@pytest.fixture
def sky():
    rng = np.random.Generator(np.random.PCG64(3))
    radiance = np.exp(rng.normal(0, 3, (8, 16, 3))).astype(np.float32)
    radiance[2:5] = radiance[2, 3]  # long runs
    radiance[0, 0] = 0
    return radiance


@pytest.mark.parametrize("coded", [False, True])
def test_radiance_files_are_read(tmp_path, sky, coded):
    file = tmp_path / "sky.hdr"
    file.write_bytes(hdr_bytes(rgbe(sky), coded))
    read = read_hdr(file)
    assert np.abs(read - sky).max(axis=-1).max() <= sky.max() / 128
    peak = sky.max(axis=-1, keepdims=True)
    assert (np.abs(read - sky) <= peak / 128 + 1e-12).all()  # 8 bits of mantissa, shared
    assert (read[0, 0] == 0).all()


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("keep", [10, 60, -5])
def test_radiance_files_that_are_cut_off_are_refused(tmp_path, sky, coded, keep):
    file = tmp_path / "sky.hdr"
    file.write_bytes(hdr_bytes(rgbe(sky), coded)[:keep])
    with pytest.raises(DatasetError, match=r"sky\.hdr"):
        read_hdr(file)


@pytest.mark.parametrize("compression", ["zip", "piz"])
def test_exr_skies_of_any_compression(tmp_path, sky, compression):
    channels = dict(zip("RGB", np.moveaxis(sky, -1, 0), strict=True))
    if compression == "zip":
        (tmp_path / "sky.exr").write_bytes(encode_exr(channels))
    else:
        import OpenEXR

        header = {"compression": OpenEXR.PIZ_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {c: np.ascontiguousarray(a) for c, a in channels.items()}).write(str(tmp_path / "sky.exr"))
    (record,) = list_hdris(tmp_path)
    # the harmonic of degree 0 is the mean radiance over the sphere times sqrt(4π)
    polar = (np.arange(8) + 0.5) / 8 * np.pi
    mean = (sky * np.sin(polar)[:, None, None]).sum(axis=(0, 1)) / (np.sin(polar).sum() * 16)
    np.testing.assert_allclose(record.irradiance_sh[0], mean * np.sqrt(4 * np.pi), rtol=0.02)


def test_broken_skies_name_themselves(tmp_path, sky):
    with pytest.raises(DatasetError, match="no such folder"):
        list_hdris(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"no \.hdr or \.exr"):
        list_hdris(tmp_path)
    (tmp_path / "square.exr").write_bytes(encode_exr(dict(zip("RGB", np.moveaxis(sky[:, :8], -1, 0), strict=True))))
    with pytest.raises(DatasetError, match=r"square\.exr.*2:1"):
        list_hdris(tmp_path)
    (tmp_path / "square.exr").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"square\.exr cannot be read"):
        list_hdris(tmp_path)


def test_a_scene_refers_to_its_sky_by_name_and_hash(tmp_path, sky):
    skies = tmp_path / "skies"
    skies.mkdir()
    for name in ("a.hdr", "b.hdr"):
        (skies / name).write_bytes(hdr_bytes(rgbe(sky), coded=True))
    config = resolve(["preset=lighting", "frames=2", f"lighting.hdris={skies}", "texture.bank_size_px=32"]).members[0]
    library = open_library(config, tmp_path / "cache")
    chosen = {sample_scene(config, 0, i, library.records).factors["lighting"].hdri.name for i in range(12)}
    assert chosen == {"a.hdr", "b.hdr"}
    scene = sample_scene(config, 0, 0, library.records)
    assert str(tmp_path) not in repr(scene)  # no path gets into a scene file
    assets = library.assets_for(scene)
    assert list(assets.hdris) == [scene.factors["lighting"].hdri.name]
    shown = {scene.factors["texture"].slots[p.slot % 128].material for p in scene.factors["geometry"].primitives}
    assert set(assets.materials) == shown  # materials of slots that no primitive shows are not made
