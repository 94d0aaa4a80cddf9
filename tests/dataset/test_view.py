"""Looking at scenes: what the page draws where, in a real browser, and what rerun reads of its recording."""

from __future__ import annotations

import base64
import dataclasses
import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import raycast
import synthetic
from PIL import Image
from scipy.spatial.transform import Rotation

sys.path.append(str(Path(__file__).parents[1]))
from browser_probe import Chromium, Page, running_chromium

from megasynth_attr.core.errors import ConfigError, DatasetError, EnvironmentProblem
from megasynth_attr.dataset import pack
from megasynth_attr.dataset.images import depth_bytes
from megasynth_attr.dataset.reader import View, open_dataset
from megasynth_attr.dataset.verify import verify_dataset
from megasynth_attr.dataset.view.__main__ import Options, chosen_scenes, main, write_view
from megasynth_attr.dataset.view.page import difference_text
from megasynth_attr.dataset.view.scene import read_scenes
from megasynth_attr.dataset.writer import open_for_writing

LEFT, RIGHT = "figure:nth-of-type(1) canvas", "figure:nth-of-type(2) canvas"


def write(dataset: Path, out: Path | str = "", **options: Any) -> Path:
    return write_view(Options(str(dataset), out=str(out), **options), progress=False)


@pytest.fixture(scope="module")
def page_file(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(pristine, tmp_path_factory.mktemp("view") / "scenes.html")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with running_chromium(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@contextmanager
def opened(chromium: Chromium, path: Path, *size: int, **options: Any) -> Iterator[Page]:
    """The page; afterwards: no exception, nothing in the console, nothing loaded but the page and what is in it."""
    with chromium.page(path.as_uri(), *size, prefers_reduced_motion="reduce", **options) as page:
        yield page
        assert page.complaints() == []
        assert {address for address in page.requested() if not address.startswith("data:")} == {path.as_uri()}


def choose(page: Page, control: str, value: object) -> None:
    """Set a slider as a hand does."""
    move = f"e.value = {value}; e.dispatchEvent(new Event('input'))"
    page.evaluate(f"(e => {{ {move}; }})(document.querySelector('{control}'))")
    page.settle()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


def at_pixels(canvas: np.ndarray, view: View) -> np.ndarray:
    """Return the canvas at the centres of a frame's pixels, H×W×3."""
    rows = ((np.arange(view.height_px) + 0.5) / view.height_px * canvas.shape[0]).astype(int)
    columns = ((np.arange(view.width_px) + 0.5) / view.width_px * canvas.shape[1]).astype(int)
    return canvas[rows][:, columns]


@pytest.mark.parametrize("frame", [0, 4])
def test_through_a_camera_the_points_are_its_picture(
    chromium: Chromium, page_file: Path, pristine: Path, frame: int
) -> None:
    with opened(chromium, page_file) as page:
        choose(page, "#size", 8)  # about as large as a pixel of the frame
        choose(page, "#frame", frame)
        for canvas, scene in zip((LEFT, RIGHT), open_dataset(pristine).scenes[:2], strict=True):
            check_against_picture(page.pixels(canvas), scene.views[frame], scene.views[(frame + 1) % 6])


def check_against_picture(canvas: np.ndarray, view: View, other: View) -> None:
    """Fail unless the canvas shows what a frame does, and would not if it were turned or another frame."""
    drawn, seen, hit = at_pixels(canvas, view), view.rgb, view.depth_z > 0
    right = psnr(drawn[hit], seen[hit])
    wrong = {"mirrored": drawn[:, ::-1], "upside down": drawn[::-1], "of another frame": other.rgb}
    differences = {name: right - psnr(pixels[hit], seen[hit]) for name, pixels in wrong.items()}
    assert right > 20 and min(differences.values()) > 5, (right, differences)
    assert np.mean((drawn == canvas[0, 0]).all(axis=2) == ~hit) > 0.97, "shapes differ"


def test_cameras_that_lean_and_upright_pictures(chromium: Chromium, tmp_path: Path) -> None:
    settings = synthetic.config("render.width_px=56", "render.height_px=70", "frames=2", "scene_count=1")
    poses = raycast.orbit(2)
    for pose, lean_deg in zip(poses, (35, -110), strict=True):
        pose[:3, :3] @= Rotation.from_euler("z", lean_deg, degrees=True).as_matrix()
    folder = open_for_writing(settings, tmp_path, 0)
    synthetic.write_scene(settings, folder, synthetic.scene(settings, 0, poses))
    views = open_dataset(folder).scenes[0].views
    with opened(chromium, write(folder)) as page:
        choose(page, "#size", 8)
        for view in views:
            choose(page, "#frame", view.index)
            check_against_picture(page.pixels("canvas"), view, views[1 - view.index])


def test_the_slider_changes_picture_name_and_view(chromium: Chromium, page_file: Path, pristine: Path) -> None:
    scene = open_dataset(pristine).scenes[1]
    with opened(chromium, page_file) as page:
        drawn = page.pixels(RIGHT)
        for frame in (0, 5):
            choose(page, "#frame", frame)
            assert page.evaluate("document.querySelector('#frame-name').textContent") == str(frame)
            image = "document.querySelectorAll('.picture')[1]"
            assert page.evaluate(f"{image}.alt") == f"Picture of scene 000001, frame {frame}"
            page.wait_for(f"{image}.complete && {image}.naturalWidth > 0")
            content = base64.b64decode(page.evaluate(f"{image}.src").partition(",")[2])
            shown, view = np.asarray(Image.open(io.BytesIO(content))), scene.views[frame]
            opaque = view.image[..., 3] == 255
            assert psnr(shown[..., :3][opaque], view.rgb[opaque]) > 25
            assert np.array_equal(shown[..., 3] > 127, view.image[..., 3] > 127), "its background is not transparent"
        assert not np.array_equal(page.pixels(RIGHT), drawn)
        page.evaluate(f"document.querySelector('{LEFT}').focus()")
        page.key("0")
        page.call("Input.dispatchKeyEvent", type="keyDown", key="PageUp", windowsVirtualKeyCode=33)
        page.settle()
        assert page.evaluate("document.querySelector('#frame').getAttribute('aria-valuetext')") == "frame 4"


def project(point: np.ndarray, view: dict[str, Any], canvas: np.ndarray) -> np.ndarray:
    """Where the page's own camera sees a point, by its definition: column, row."""
    around = np.array([np.cos(view["azimuth"]), np.sin(view["azimuth"]), 0]) * np.cos(view["elevation"])
    back = around + np.array([0, 0, np.sin(view["elevation"])])
    right = np.cross([0, 0, 1], back) / np.hypot(*back[:2])
    offset = point - np.array(view["target"]) - view["distance"] * back
    x, y, z = offset @ right, offset @ np.cross(right, back), -offset @ back
    height, width = canvas.shape[:2]
    return np.array([width / 2, height / 2]) + view["focal"] * min(width, height) * np.array([x, y]) / z


def test_cameras_stand_where_they_are_and_the_current_one_is_marked(
    chromium: Chromium, page_file: Path, pristine: Path
) -> None:
    scene = open_dataset(pristine).scenes[0]
    with opened(chromium, page_file) as page:
        choose(page, "#frame", 2)
        page.click("#overview")
        records = page.evaluate("JSON.parse(document.querySelector('#records').textContent)")
        tones = {name: page.evaluate(f"Splat.themeColour('--{name}')") for name in ("current", "camera")}
        canvas = page.pixels(LEFT).astype(int)

        def is_drawn(point: np.ndarray, tone: str) -> bool:
            column, row = project(point, records["overview"], canvas).astype(int)
            around = canvas[row - 3 : row + 4, column - 3 : column + 4]
            return bool((np.abs(around - tones[tone]).max(axis=2) < 40).any())

        for view in scene.views:
            world_from_camera = np.linalg.inv(view.camera_from_world)
            tone, other = ("current", "camera") if view.index == 2 else ("camera", "current")
            size = np.array([view.width_px, view.height_px])
            corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.5 * size / view.intrinsics[0, 0]
            mark = np.array([[0, 1.6 * corners[0, 1]]])  # above the upper edge
            for x, y in [*corners, *mark]:
                assert is_drawn((world_from_camera @ [*(records["length"] * np.array([x, y, 1])), 1])[:3], tone)
            assert is_drawn(world_from_camera[:3, 3], tone) and not is_drawn(world_from_camera[:3, 3], other)
        page.click("#cameras")
        canvas = page.pixels(LEFT).astype(int)
        assert not is_drawn(np.linalg.inv(scene.views[2].camera_from_world)[:3, 3], "current")


def test_scenes_move_together_until_they_are_parted(chromium: Chromium, page_file: Path) -> None:
    def silhouettes(page: Page) -> list[np.ndarray]:
        return [(canvas != canvas[0, 0]).any(axis=2) for canvas in (page.pixels(LEFT), page.pixels(RIGHT))]

    pressed = "document.querySelector('#through').getAttribute('aria-pressed')"
    with opened(chromium, page_file) as page:
        start = page.pixels(LEFT)
        assert np.array_equal(*silhouettes(page)), "the cameras are the same, and so are the shapes"
        page.drag(RIGHT, 80, 20)
        page.wait_for(f"{pressed} === 'false'")
        assert np.array_equal(*silhouettes(page)) and not np.array_equal(page.pixels(LEFT), start)
        choose(page, "#frame", 3)
        assert page.evaluate(pressed) == "false", "a moved view does not jump when the frame changes"
        page.evaluate(f"document.querySelector('{LEFT}').focus()")
        choose(page, "#frame", 0)
        page.key("0")
        page.wait_for("!document.querySelector('#over').disabled")
        assert page.evaluate(pressed) == "true" and np.array_equal(page.pixels(LEFT), start)
        page.click("#linked")
        page.drag(LEFT, 80, 20)
        left, right = silhouettes(page)
        assert not np.array_equal(left, right)


def test_the_picture_lies_over_the_points(chromium: Chromium, page_file: Path, pristine: Path) -> None:
    view = open_dataset(pristine).scenes[0].views[0]
    with opened(chromium, page_file) as page:
        choose(page, "#over", 100)
        page.centre(LEFT)
        rectangle = f"document.querySelector('{LEFT}').getBoundingClientRect()"
        box = page.evaluate(f"(r => [r.x, r.y, r.right, r.bottom])({rectangle})")
        x0, y0, x1, y1 = (round(value) for value in box)
        page.wait_for("document.querySelector('.over').complete")
        seen = at_pixels(page.screenshot()[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1], view)
        inner = view.image[..., 3] == 255
        assert psnr(seen[inner], view.rgb[inner]) > 22
        page.click("#overview")
        assert page.evaluate("document.querySelector('.over').checkVisibility()") is False


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_nothing_overflows_and_all_is_reached_by_keys(
    chromium: Chromium, page_file: Path, width: int, scheme: str
) -> None:
    outside = """[...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !e.closest(".skip")
        && e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML)"""
    with opened(chromium, page_file, width, 844, mobile=width < 500, prefers_color_scheme=scheme) as page:
        assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        assert page.evaluate(outside) == []
        brightness = page.pixels(LEFT)[0, 0].mean()
        assert brightness < 60 if scheme == "dark" else brightness > 220
        reached = []
        for _ in range(9):
            page.key("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.ariaLabel"))
        points = [f"Points of scene {name}" for name in ("000000", "000001")]
        assert reached[1:] == ["frame", "through", "overview", *points, "over", "size", "linked"]


def test_a_scene_without_surfaces_says_so(chromium: Chromium, dataset: Path, tmp_path: Path) -> None:
    for path in (dataset / "scenes/000/000002/depth").iterdir():
        path.write_bytes(depth_bytes(np.zeros((synthetic.HEIGHT, synthetic.WIDTH), np.float32), "float32"))
    out = write(dataset, tmp_path / "empty.html", scene="2")
    with opened(chromium, out) as page:
        assert "no frame sees a surface" in page.evaluate("document.querySelector('figcaption').textContent")
        assert page.evaluate("document.querySelectorAll('canvas').length") == 1
        page.click("#overview")
        page.drag("canvas", 30, 30)


def test_packed_scenes_give_the_same_page(dataset: Path, page_file: Path, tmp_path: Path) -> None:
    pack.main([f"dataset={dataset}", "scenes=1"])
    assert (dataset / "scenes/000/000001.tar").is_file()
    assert write(dataset, tmp_path / "packed.html").read_bytes() == page_file.read_bytes()


def test_size_is_bounded_and_the_default_place_is_the_dataset(dataset: Path, page_file: Path) -> None:
    out = write(dataset, scene="2,0", points=90, frames=2, picture_px=16)
    assert out == dataset / "view/000000_000002.html"
    text = out.read_text(encoding="utf-8")
    assert "2 of 6 frames" in text and "90 of" not in text and len(text) < 60_000 < page_file.stat().st_size
    assert [path.name for path in out.parent.iterdir()] == [out.name], "something else was left there"
    assert write(dataset, scene="1", points=1).name == "000001.html"
    assert verify_dataset(dataset, progress=False).passed, "verify takes offence at the folder"


def test_rerun_reads_the_recording(pristine: Path, tmp_path: Path) -> None:
    dataframe = pytest.importorskip("rerun.dataframe")
    out = write(pristine, tmp_path / "look.rrd", scene="1", format="rerun", points=3000)
    recording = dataframe.load_recording(out)
    assert recording.application_id() == "texture_00"
    table = recording.view(index="frame", contents="/000001/**").select().read_all().to_pydict()
    scene = open_dataset(pristine).scenes[1]
    assert table["frame"] == list(range(6))
    for view, place, turned, picture in zip(
        scene.views,
        table["/000001/camera:Translation3D"],
        table["/000001/camera:TransformMat3x3"],
        table["/000001/camera/picture:Blob"],
        strict=True,
    ):
        world_from_camera = np.linalg.inv(view.camera_from_world)
        np.testing.assert_allclose(place[0], world_from_camera[:3, 3], atol=1e-5)
        np.testing.assert_allclose(np.reshape(turned[0], (3, 3)).T, world_from_camera[:3, :3], atol=1e-5)
        pixels = np.asarray(Image.open(io.BytesIO(bytes(picture[0]))))
        opaque = view.image[..., 3] == 255
        assert psnr(pixels[opaque], view.rgb[opaque]) > 25
    static = recording.view(index="frame", contents="/000001/**").select_static().read_all().to_pydict()
    intrinsics = np.reshape(static["/000001/camera:PinholeProjection"][0][0], (3, 3)).T
    np.testing.assert_allclose(intrinsics, scene.intrinsics, rtol=1e-5)
    points, colours = (np.array(static[f"/000001/points:{name}"][0]) for name in ("Position3D", "Color"))
    exact, rgb = (np.concatenate([part(view) for view in scene.views]) for part in (surface, colour))
    assert 2000 < len(points) <= 3000
    for point, packed in zip(points[::100], colours[::100], strict=True):
        nearest = np.linalg.norm(exact - point, axis=1).argmin()
        assert np.linalg.norm(exact[nearest] - point) < 1e-5
        assert packed >> 8 == int.from_bytes(rgb[nearest].tobytes(), "big")


def surface(view: View) -> np.ndarray:
    assert view.position is not None  # written by the ray caster, not computed from depth
    return view.position[view.depth_z > 0]


def colour(view: View) -> np.ndarray:
    return view.rgb[view.depth_z > 0]


def test_what_differs_is_said_in_words(pristine: Path) -> None:
    a, b = read_scenes(open_dataset(pristine).scenes[:2], points=6, frames=1, picture_px=16, progress=False)
    assert difference_text(a, b) == "They differ in texture; camera, geometry, lighting and noise are equal to the bit."
    assert difference_text(a, a) == "Camera, geometry, lighting, texture and noise are equal to the bit."
    strange = dataclasses.replace(a, hashes={name: "other" for name in a.hashes} | {"haze": "x"})
    assert difference_text(a, strange) == "They differ in camera, geometry, haze, lighting, texture and noise."


def test_scenes_of_a_dataset_in_which_everything_varies_are_shown_one_at_a_time(pristine: Path) -> None:
    dataset = open_dataset(pristine)
    assert [scene.index for scene in chosen_scenes(dataset, "")] == [0, 1]
    factors = {name: dataclasses.replace(one, scope="scene") for name, one in dataset.recorded.config.factors.items()}
    config = dataclasses.replace(dataset.recorded.config, factors=factors)
    varied = dataclasses.replace(dataset, recorded=dataclasses.replace(dataset.recorded, config=config))
    assert [scene.index for scene in chosen_scenes(varied, "")] == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scene": "7"}, "scene=7: index 7 is out of range, there are 3"),
        ({"scene": "all"}, "scene=all: that is 3 scenes; name one or two, such as scene=0,3"),
        ({"scene": "first"}, "scene=first: write all, a number"),
        ({"scene": "0,2"}, "scene 2 does not exist in .*; the nearest that do are 0, 1; if you made"),
        ({"out": "."}, r"out=\. is a folder; name a file in it, such as out=look.html"),
        ({"out": "there.html"}, "there.html exists; delete it, or name another file: out=FILE"),
    ],
)
def test_bad_words(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.html").write_text("mine")
    shutil.rmtree(dataset / "scenes/000/000002")
    with pytest.raises(ConfigError, match=message):
        write(dataset, **options)
    assert Path("there.html").read_text() == "mine" and not (dataset / "view").exists()


def test_bad_data(dataset: Path) -> None:
    (dataset / "scenes/000/000001/rgb/0003.png").unlink()
    with pytest.raises(DatasetError, match=r"0003\.png is missing; if you made this dataset"):
        write(dataset)
    (dataset / "scenes/000/000000/depth/0002.exr").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"0002\.exr"):
        write(dataset, scene="0")
    with pytest.raises(DatasetError, match="it holds the datasets texture_00: name one of them"):
        write(dataset.parent)
    shutil.rmtree(dataset / "scenes")
    with pytest.raises(DatasetError, match="has none of its 3 scenes yet; if you made"):
        write(dataset)
    with pytest.raises(ConfigError, match=r"scene 1 does not exist in .*; it has none yet"):
        write(dataset, scene="1")
    assert not (dataset / "view").exists()


@pytest.mark.parametrize(("missing", "form"), [("jinja2", "html"), ("rerun", "rerun")])
def test_a_package_that_is_missing(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, form: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(EnvironmentProblem, match=f"needs .*{missing}.*; install it with: pip install 'megasynth-attr"):
        write(pristine, tmp_path / "look", format=form)
    assert not (tmp_path / "look").exists()


def test_a_name_too_long_for_any_disk(pristine: Path) -> None:
    with pytest.raises(ConfigError, match=r"the view cannot be written: a name in x+… is too long"):
        write(pristine, "x" * 300)


def test_a_disk_that_refuses(pristine: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="the view cannot be written to"):
        write(pristine, tmp_path / "file" / "look.html", points=1)


def test_words_and_help(pristine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    for key in ("dataset", "scene", "out", "format", "points", "frames", "picture_px"):
        assert f"  {key}" in said
    with pytest.raises(ConfigError, match=r"did you mean points\?"):
        main(["dataset=x", "point=3"])
    with pytest.raises(ConfigError, match="points=0: must be at least 1"):
        main(["dataset=x", "points=0"])
    main([f"dataset={pristine}", f"out={tmp_path / 'look.html'}", "scene=0", "points=50", "frames=1"])
    assert capsys.readouterr().out.startswith(f"wrote {tmp_path / 'look.html'} (")
