"""Depth files of other programs: the right channel, the right unit, and 0 wherever there is no depth."""

from __future__ import annotations

import io
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.dataset.images import write_png
from megasynth_train.data.depth_files import DepthFile, depth_channel

FIXTURES = Path(__file__).parents[2] / "fixtures" / "depth_exr"
HOLE = (slice(12, 24), slice(30, 52))
LOSSLESS = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24")  # of half precision
COMPRESSIONS = (*LOSSLESS, "B44", "B44A", "DWAA", "DWAB")


def ramp(background: float = 0.0) -> np.ndarray:
    """Return 50×70 depth that falls from about 3 to 2, with a hole."""
    depth = np.linspace(3.001, 2.0, 50 * 70, dtype=np.float32).reshape(50, 70)
    depth[HOLE] = background
    return depth


def colours() -> dict[str, np.ndarray]:
    """Return R, G and B of a picture that is no depth."""
    v, u = np.mgrid[:50, :70].astype(np.float32)
    return {"R": u / 70, "G": v / 50, "B": 1 - u / 70}


def write(path: Path, channels: dict, compression: str = "ZIP", dtype=np.float32) -> Path:
    header = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {name: _as(values, dtype) for name, values in channels.items()}).write(str(path))
    return path


def write_parts(path: Path, parts: dict[str, tuple[str, dict]], dtype=np.float32) -> Path:
    def part(name: str, compression: str, channels: dict) -> OpenEXR.Part:
        header = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), "type": OpenEXR.scanlineimage}
        return OpenEXR.Part(header | {"name": name}, {key: _as(value, dtype) for key, value in channels.items()})

    OpenEXR.File([part(name, *rest) for name, rest in parts.items()]).write(str(path))
    return path


def _as(values: np.ndarray, dtype) -> np.ndarray:
    with warnings.catch_warnings():  # 1e10 becomes infinite in half precision
        warnings.simplefilter("ignore")
        return np.ascontiguousarray(values.astype(dtype))


def check(file: Path, tolerance: float = 2e-3, unit: float = 1.0, edge: int = 0) -> None:
    """Compare with the ramp but ``edge`` pixels around the hole."""
    depth, true = DepthFile(file, unit).read(), ramp()
    assert depth.dtype == np.float32 and depth.shape == true.shape
    assert (depth[HOLE] == 0).all()
    compared = np.ones(true.shape, bool)
    compared[HOLE[0].start - edge : HOLE[0].stop + edge, HOLE[1].start - edge : HOLE[1].stop + edge] = False
    np.testing.assert_allclose(depth[compared], true[compared], rtol=tolerance)


def check_lossy(file: Path, compression: str) -> None:
    """B44 stores 4×4 pixels relative to the largest of them: beside a background nothing is left of depth."""
    check(file, 0.03 if compression[:3] in ("DWA", "B44") else 1e-3, edge=4 if compression[:3] == "B44" else 0)


class TestExr:
    @pytest.mark.parametrize("name", ["bg_65504", "half_DWAA", "multipart_piz", "rgb_plus_Z"])
    def test_files_that_were_read_wrongly(self, name):
        depth = DepthFile(FIXTURES / f"{name}.exr").read()
        assert depth.shape == (50, 70) and depth.min() == 0 and 0.02 < (depth == 0).mean() < 0.3
        seen = depth[depth > 0]
        assert 1.99 < seen.min() < 2.01 and 2.9 < seen.max() < 3.01

    @pytest.mark.parametrize(
        ("compression", "background"),
        [*product(COMPRESSIONS, [1e10, 65_504]), *product(LOSSLESS, [np.inf])],
    )
    def test_half_precision_of_every_compression(self, tmp_path, compression, background):
        """A background of 1e10 is clamped by whoever converts it to half precision, or becomes infinite."""
        depth = ramp(background) if background == np.inf else np.minimum(ramp(background), 65_504)
        check_lossy(write(tmp_path / "depth.exr", {"Z": depth}, compression, np.float16), compression)

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    @pytest.mark.parametrize("names", [("R", "G", "B"), ("R", "G", "B", "A")])
    def test_equal_colours_are_depth(self, tmp_path, compression, names):
        depth = np.minimum(ramp(1e10), 65_504)
        file = write(tmp_path / "depth.exr", dict.fromkeys(names, depth), compression, np.float16)
        check_lossy(file, compression)

    @pytest.mark.parametrize("compression", ["DWAA", "DWAB"])
    @pytest.mark.parametrize("background", [1e10, 65_504])
    def test_lossy_compression_of_single_precision(self, tmp_path, compression, background):
        depth = dict.fromkeys("RGB", ramp(background))
        check_lossy(write(tmp_path / "depth.exr", depth, compression), compression)

    def test_tiles(self, tmp_path):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.tiledimage}
        header["tiles"] = OpenEXR.TileDescription()
        OpenEXR.File(header, {"Z": ramp(1e10)}).write(str(tmp_path / "depth.exr"))
        check(tmp_path / "depth.exr", 1e-6)

    @pytest.mark.parametrize("background", [0, -1, -np.inf, np.nan, np.inf, 1e10, 3e9, 65_504])
    def test_every_kind_of_background(self, tmp_path, background):
        check(write(tmp_path / "depth.exr", {"Z": ramp(background)}), 1e-6)

    def test_lossy_files_saved_again_in_single_precision(self, tmp_path):
        depth = ramp(65_248)
        depth[HOLE][0] = 64_704  # what is left of a background beside an edge
        check(write(tmp_path / "depth.exr", {"Z": depth}), 1e-6)

    def test_what_is_really_far_away_stays(self, tmp_path):
        """A valley in millimetres: single precision, and depths up to 90 m without a gap."""
        far = np.linspace(500, 90_000, 50 * 70, dtype=np.float32).reshape(50, 70)
        depth = DepthFile(write(tmp_path / "far.exr", {"Z": far}), 0.001).read()
        np.testing.assert_allclose(depth, far / 1000, rtol=1e-6)

    @pytest.mark.parametrize(
        "names",
        [
            "Z",
            "V",
            "depth.Z",
            "depth.V",
            "ViewLayer.Depth.Z",
            "View Layer.Depth.V",
            "depth",
            "cam.Depth",
            "Y",
            "anything",
        ],
    )
    def test_names_of_channels(self, tmp_path, names):
        alone = names in ("Y", "anything")
        others = {} if alone else {**colours(), "A": np.ones((50, 70), np.float32)}
        check(write(tmp_path / "depth.exr", {names: ramp(1e10), **others}), 1e-6)

    def test_blenders_layers(self, tmp_path):
        """Depth beside the passes whose Z is a direction or a position, and beside mist."""
        passes = {f"ViewLayer.{name}.{axis}": ramp(7) for name in ("Normal", "Position", "Vector") for axis in "XYZ"}
        passes |= {f"ViewLayer.Combined.{c}": value for c, value in colours().items()}
        passes |= {"ViewLayer.Mist.Z": ramp(1), "ViewLayer.Denoising Depth.Z": ramp(9)}
        file = write(tmp_path / "depth.exr", passes | {"ViewLayer.Depth.Z": ramp(1e10)})
        check(file, 1e-6)

    @pytest.mark.parametrize("compression", ["ZIP", "PIZ", "DWAB"])
    @pytest.mark.parametrize("first", [True, False])
    def test_several_parts(self, tmp_path, compression, first):
        """ZIP by our reader, the others by the library: depth is found in any part."""
        parts = {"rgb": (compression, colours()), "depth": ("ZIP", {"Z": ramp(1e10)})}
        file = write_parts(tmp_path / "depth.exr", dict(sorted(parts.items(), reverse=not first)))
        check(file, 1e-6)

    def test_parts_named_as_layers(self, tmp_path):
        parts = {
            "ViewLayer.Combined": ("PIZ", {f"ViewLayer.Combined.{c}": value for c, value in colours().items()}),
            "ViewLayer.Depth": ("PIZ", {"ViewLayer.Depth.V": ramp(1e10)}),
            "ViewLayer.Normal": ("PIZ", {f"ViewLayer.Normal.{axis}": ramp() for axis in "XYZ"}),
        }
        check(write_parts(tmp_path / "depth.exr", parts), 1e-6)

    def test_what_is_no_depth_is_refused(self, tmp_path):
        with pytest.raises(DatasetError, match=r"3 channels \(B, G, R\) is known to be depth: a channel Z or V"):
            DepthFile(write(tmp_path / "colour.exr", colours())).read()
        normals = {axis: ramp() for axis in "XYZ"}
        with pytest.raises(DatasetError, match=r"3 channels \(X, Y, Z\) is known"):
            DepthFile(write(tmp_path / "normal.exr", normals)).read()
        two = {"left.Z": ramp(), "right.Z": ramp() + 1}
        with pytest.raises(DatasetError, match=r"channels left\.Z, right\.Z may all be depth"):
            DepthFile(write(tmp_path / "two.exr", two)).read()
        assert depth_channel({"left.Z": ramp(), "right.Z": ramp()}) == "left.Z"  # the same: no matter which

    def test_damaged(self, tmp_path):
        file = write(tmp_path / "depth.exr", {"Z": ramp()}, "PIZ")
        file.write_bytes(file.read_bytes()[:500])
        with pytest.raises(DatasetError, match=r"depth\.exr cannot be read"):
            DepthFile(file).read()


class TestOthers:
    def test_png_in_millimetres(self, tmp_path):
        numbers = np.rint(ramp() * 1000).astype(np.uint16)
        numbers[HOLE][0] = 65_535  # a sensor's "too far"
        write_png(tmp_path / "depth.png", numbers)
        check(tmp_path / "depth.png", 3e-4, 0.001)

    def test_a_picture_of_depth_is_refused(self, tmp_path):
        write_png(tmp_path / "grey.png", np.full((50, 70), 200, np.uint8))
        with pytest.raises(DatasetError, match=r"grey\.png has 8 bits per pixel and is a picture of depth, not depth"):
            DepthFile(tmp_path / "grey.png").read()
        write_png(tmp_path / "colour.png", np.full((50, 70, 3), 200, np.uint8))
        with pytest.raises(DatasetError, match=r"colour mode RGB and holds no grey numbers; save depth as a grey PNG"):
            DepthFile(tmp_path / "colour.png").read()
        content = io.BytesIO()
        Image.new("L", (70, 50)).save(content, "JPEG")
        (tmp_path / "jpeg.png").write_bytes(content.getvalue())
        with pytest.raises(DatasetError, match=r"jpeg\.png is no PNG, whatever its name says"):
            DepthFile(tmp_path / "jpeg.png").read()

    @pytest.mark.filterwarnings("error")
    def test_arrays_that_are_no_depth(self, tmp_path):
        huge = io.BytesIO()
        np.lib.format.write_array_header_1_0(huge, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**7)})
        (tmp_path / "huge.npy").write_bytes(huge.getvalue())  # no memory holds it
        np.save(tmp_path / "complex.npy", np.full((5, 7), 1j))
        np.save(tmp_path / "days.npy", np.full((5, 7), np.datetime64("2020-01-01")))
        with (tmp_path / "several.npy").open("wb") as file:
            np.savez(file, a=np.ones((5, 7)))
        for name in ("huge", "complex", "days", "several"):
            with pytest.raises(DatasetError, match=rf"{name}\.npy cannot be read"):
                DepthFile(tmp_path / f"{name}.npy").read()
        np.save(tmp_path / "far.npy", np.full((5, 7), 1e300))
        assert not DepthFile(tmp_path / "far.npy").read().any()

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16])
    def test_npy(self, tmp_path, dtype):
        unit = 1000 if dtype is np.uint16 else 1
        np.save(tmp_path / "depth.npy", (ramp() * unit).astype(dtype)[..., None])
        check(tmp_path / "depth.npy", 2e-3, 1 / unit)
        np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
        with pytest.raises(DatasetError, match=r"objects\.npy cannot be read"):
            DepthFile(tmp_path / "objects.npy").read()
        np.save(tmp_path / "flat.npy", np.zeros(9))
        with pytest.raises(DatasetError, match=r"flat\.npy has the shape \(9,\); depth is one number per pixel"):
            DepthFile(tmp_path / "flat.npy").read()

    def test_colmap(self, tmp_path):
        file = tmp_path / "a.jpg.geometric.bin"
        file.write_bytes(b"70&50&1&" + ramp(-1).astype("<f4").tobytes())
        check(file, 1e-6)
        file.write_bytes(b"70&50&1&" + ramp().astype("<f4").tobytes()[:-4])
        with pytest.raises(DatasetError, match=r"is no depth map of COLMAP's \(its size does not fit its header\)"):
            DepthFile(file).read()
        file.write_bytes(b"nothing")
        with pytest.raises(DatasetError, match="is no depth map of COLMAP's"):
            DepthFile(file).read()

    @pytest.mark.parametrize("unit", [1e300, 1e36])
    def test_a_unit_that_leaves_no_number(self, tmp_path, unit):
        np.save(tmp_path / "a.npy", np.full((2, 3), 700.0))
        with pytest.raises(
            DatasetError, match=r"a\.npy: depth in units of 1e\+\d+ is too large for 32-bit numbers; give"
        ):
            DepthFile(tmp_path / "a.npy", unit).read()

    def test_unknown_and_missing(self, tmp_path):
        with pytest.raises(DatasetError, match=r"depth\.tiff: depth is read from \.exr, \.png, \.npy"):
            DepthFile(tmp_path / "depth.tiff").read()
        with pytest.raises(DatasetError, match=r"depth\.exr is missing; restore it"):
            DepthFile(tmp_path / "depth.exr").read()
