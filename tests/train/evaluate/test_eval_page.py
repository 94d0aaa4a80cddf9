"""The point-cloud page in a real browser: what is drawn where, and what mouse, touch, keys and choices do."""

from __future__ import annotations

import itertools
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

sys.path.append(str(Path(__file__).parents[2]))
from browser_probe import Chromium, Page, running_chromium

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem
from megasynth_train.evaluate import page as point_page
from megasynth_train.evaluate.page import Cloud, PageScene, points_per_cloud, write_point_page

EYE, TARGET = np.array([3.0, -4.0, 2.0]), np.array([0.2, 0.1, 0.4])
COLOURS = np.array([[220, 30, 30], [30, 160, 40], [40, 60, 220], [200, 170, 20], [160, 40, 180]], dtype=np.uint8)
LEFT, RIGHT = "[data-pane=predicted] canvas", "[data-pane=true] canvas"
HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(2)>"'&amp;"""


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """camera_from_world (OpenCV axes) of an upright camera."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = [right, np.cross(forward, right), forward]
    pose[:3, 3] = -pose[:3, :3] @ eye
    return pose


def pixels_of(points: np.ndarray, canvas: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Where a 50° pinhole camera sees the points: column, row."""
    height, width = canvas.shape[:2]
    x, y, z = (points @ pose[:3, :3].T + pose[:3, 3]).T
    focal = 0.5 * min(width, height) / np.tan(np.radians(25))
    return np.stack([width / 2 + focal * x / z, height / 2 + focal * y / z], axis=1)


def seen(canvas: np.ndarray, points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    column, row = np.floor(pixels_of(points, canvas, pose)).astype(int).T
    return canvas[row, column]


def targets() -> np.ndarray:
    """Five points around the target that do not hide one another, the first in the middle."""
    return TARGET + np.array([[0, 0, 0], [0.9, 0.5, 0], [-0.8, -0.5, 0.1], [0, 0, 0.9], [0.1, 0, -0.9]])


def scene_of_points(name: str = "five", shift: float = 0.0, **changes: Any) -> PageScene:
    pose = look_at(EYE, TARGET)[None]
    none = np.zeros((0, 4, 4))
    values: dict[str, Any] = {
        "predicted": Cloud((targets() + np.array([0, 0, shift])).astype(np.float32), COLOURS),
        "truth": Cloud(targets().astype(np.float32), COLOURS),
        "cameras_predicted": none,
        "cameras_truth": pose,
        "facts": {"Accuracy": "0.01"},
    }
    return PageScene(name=name, **values | changes)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with running_chromium(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@contextmanager
def opened(chromium: Chromium, path: Path, *size: int, motion: str = "reduce", **options: Any) -> Iterator[Page]:
    """The page; afterwards: no exception, nothing in the console, nothing loaded but the page itself."""
    with chromium.page(path.as_uri(), *size, prefers_reduced_motion=motion, **options) as page:
        yield page
        assert page.complaints() == []
        assert page.requested() == [path.as_uri()]


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predicted and true are the same five points."""
    return write_point_page(tmp_path_factory.mktemp("equal"), [scene_of_points()])


def test_points_are_where_the_camera_sees_them(chromium: Chromium, equal: Path) -> None:
    with opened(chromium, equal) as page:
        for canvas in (page.pixels(LEFT), page.pixels(RIGHT)):
            assert seen(canvas, targets(), look_at(EYE, TARGET)).tolist() == COLOURS.tolist()
            drawn = (canvas != canvas[0, 0]).any(axis=2)
            assert 5 * 4 <= np.count_nonzero(drawn) <= 5 * 16, "other things than five small squares"
        window = page.screenshot()
        for colour in COLOURS:
            assert np.count_nonzero((window == colour).all(axis=2)) >= 2 * 4, "the window shows other than its canvases"


def test_a_nearer_point_hides_a_farther_one_in_any_order(chromium: Chromium, tmp_path: Path) -> None:
    line = np.array([TARGET, EYE + 0.5 * (TARGET - EYE), TARGET + 0.3 * (TARGET - EYE)])
    clouds = [Cloud(np.roll(line, k, axis=0), np.roll(COLOURS[:3], k, axis=0)) for k in range(3)]
    scenes = [scene_of_points(predicted=clouds[k], truth=clouds[(k + 1) % 3]) for k in (0, 1)]
    with opened(chromium, write_point_page(tmp_path, scenes)) as page:
        for _ in scenes:
            for canvas in (page.pixels(LEFT), page.pixels(RIGHT)):
                assert seen(canvas, line[:1], look_at(EYE, TARGET)).tolist() == COLOURS[1:2].tolist()
            page.evaluate("document.querySelector('#scene').focus()")
            page.key("ArrowDown")


def test_dragging_turns_both_views_about_the_target(chromium: Chromium, equal: Path) -> None:
    with opened(chromium, equal) as page:
        start = page.pixels(LEFT)
        page.drag(RIGHT, 60, 0)
        turned = page.pixels(LEFT)
        assert np.array_equal(turned, page.pixels(RIGHT)) and not np.array_equal(turned, start)
        pose = look_at(EYE, TARGET)
        depth = np.median((targets() - EYE) @ pose[2, :3])  # the page turns about what lies at this depth
        pivot = EYE + depth * pose[2, :3]
        eye = pivot + Rotation.from_rotvec([0, 0, -60 * 0.008]).apply(EYE - pivot)
        assert seen(turned, targets(), look_at(eye, pivot)).tolist() == COLOURS.tolist()
        page.drag(LEFT, 0, 50)
        eye = pivot + Rotation.from_rotvec(-50 * 0.008 * look_at(eye, pivot)[0, :3]).apply(eye - pivot)
        turned = page.pixels(LEFT)
        assert seen(turned, targets(), look_at(eye, pivot)).tolist() == COLOURS.tolist()
        page.drag(LEFT, 0, 40, modifiers=8)
        moved = page.pixels(LEFT)
        assert np.array_equal(moved, page.pixels(RIGHT))
        rows = pixels_of(targets()[:1], turned, look_at(eye, pivot))[0, 1]
        found = np.argwhere((moved == COLOURS[0]).all(axis=2)).mean(axis=0)[0]
        assert found == pytest.approx(rows + 40, abs=2)
        page.click("#reset")
        assert np.array_equal(page.pixels(LEFT), start)


def spread(canvas: np.ndarray) -> float:
    """Distance in pixels between the second and the third point."""
    a, b = (np.argwhere((canvas == colour).all(axis=2)).mean(axis=0) for colour in COLOURS[1:3])
    return float(np.linalg.norm(a - b))


def test_wheel_and_keys(chromium: Chromium, equal: Path) -> None:
    with opened(chromium, equal) as page:
        start = page.pixels(LEFT)
        x, y = page.centre(LEFT)
        page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-200)
        page.settle()
        nearer = page.pixels(LEFT)
        assert np.array_equal(nearer, page.pixels(RIGHT))
        assert spread(nearer) == pytest.approx(spread(start) * np.exp(0.24), rel=0.1)
        page.evaluate(f"document.querySelector('{RIGHT}').focus()")
        page.key("0")
        assert np.array_equal(page.pixels(LEFT), start)
        for key, back, modifiers in (("ArrowLeft", "ArrowRight", 0), ("ArrowUp", "ArrowDown", 8), ("+", "-", 0)):
            page.key(key, modifiers=modifiers)
            changed = page.pixels(LEFT)
            assert not np.array_equal(changed, start) and np.array_equal(changed, page.pixels(RIGHT)), key
            page.key(back, modifiers=modifiers)
            assert (page.pixels(LEFT) == start).mean() > 0.9999, f"{back} does not undo {key}"
        page.key("Tab")
        assert page.evaluate("document.activeElement.id") == "size"


def test_focus_is_visible_and_the_order_of_tabs_sensible(chromium: Chromium, equal: Path) -> None:
    with opened(chromium, equal) as page:
        reached = []
        for _ in range(9):
            page.key("Tab")
            what = "(e => e.id || e.name || e.className || e.getAttribute('aria-label'))(document.activeElement)"
            reached.append(page.evaluate(what))
            width = "getComputedStyle(document.activeElement).outlineWidth"
            assert page.evaluate(width) == "3px", f"{reached[-1]} shows no focus ring"
        assert reached[:3] == ["skip", "layout", "colour"]
        assert reached[3:5] == [f"{what} points of scene five" for what in ("Predicted", "True")]
        assert reached[5:] == ["size", "cameras-predicted", "cameras-true", "reset"]


def test_fingers(chromium: Chromium, equal: Path) -> None:
    with opened(chromium, equal, 390, 844, mobile=True, scale=2) as page:
        start = page.pixels(LEFT)
        x, y = page.centre(LEFT)

        def touch(kind: str, *fingers: tuple[float, float]) -> None:
            points = [{"x": x + dx, "y": y + dy, "id": i} for i, (dx, dy) in enumerate(fingers)]
            page.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)

        touch("touchStart", (-30, 0), (30, 0))
        touch("touchMove", (-45, 0), (45, 0))
        touch("touchMove", (-60, 0), (60, 0))
        touch("touchEnd")
        page.settle()
        pinched = page.pixels(LEFT)
        assert spread(pinched) == pytest.approx(2 * spread(start), rel=0.25)
        page.click("#reset")
        x, y = page.centre(LEFT)
        touch("touchStart", (0, 0))
        touch("touchMove", (20, 5))
        touch("touchMove", (40, 10))
        touch("touchEnd")
        page.settle()
        turned = page.pixels(LEFT)
        assert not np.array_equal(turned, start) and np.array_equal(turned, page.pixels(RIGHT))
        assert spread(turned) < 1.5 * spread(start)


def theme_colour(page: Page, name: str) -> list[int]:
    value = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()")
    return [int(value[i : i + 2], 16) for i in (1, 3, 5)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colour_modes_overlay_and_schemes(chromium: Chromium, tmp_path: Path, scheme: str) -> None:
    # The predicted cloud: four points where they belong and one far away
    wrong = targets()
    wrong[1] += [0.5, 0.2, 0]
    path = write_point_page(tmp_path, [scene_of_points(predicted=Cloud(wrong, COLOURS))])
    pose = look_at(EYE, TARGET)
    with opened(chromium, path, prefers_color_scheme=scheme) as page:
        brightness = page.pixels(LEFT)[0, 0].mean()
        assert brightness < 60 if scheme == "dark" else brightness > 220
        assert page.evaluate("document.querySelector('.scale').checkVisibility()") is False
        page.click("input[value=distance]")
        near, far = theme_colour(page, "--e0"), theme_colour(page, "--e3")
        assert seen(page.pixels(LEFT), wrong, pose).tolist() == [near, far, near, near, near]
        assert seen(page.pixels(RIGHT), targets(), pose).tolist() == [near, far, near, near, near]
        # Two of ten distances are not 0, so the scale's end, the 95th percentile, is theirs
        distance = np.linalg.norm(wrong[1] - targets()[1])
        assert f"{distance:.3g} scene units or more" in page.evaluate(
            "document.querySelector('#scale-end').textContent"
        )
        page.click("input[value=overlay]")
        orange, blue = theme_colour(page, "--predicted"), theme_colour(page, "--true")
        assert page.evaluate("document.querySelector('input[value=source]').checked")
        assert page.evaluate(f"document.querySelector('{RIGHT}').checkVisibility()") is False
        both = page.pixels(LEFT)
        assert seen(both, np.stack([wrong[1], targets()[1]]), pose).tolist() == [orange, blue]
        page.click("input[value=image]")
        assert seen(page.pixels(LEFT), targets(), pose).tolist() == COLOURS.tolist()
        page.click("input[value=side]")
        assert page.evaluate("document.querySelector('input[value=distance]').checked"), "each layout keeps its colours"
        other = {"name": "prefers-color-scheme", "value": "light" if scheme == "dark" else "dark"}
        page.call("Emulation.setEmulatedMedia", features=[other, {"name": "prefers-reduced-motion", "value": "reduce"}])
        page.settle()
        assert seen(page.pixels(LEFT), wrong[:2], pose).tolist() == [theme_colour(page, n) for n in ("--e0", "--e3")]
        assert abs(page.pixels(LEFT)[0, 0].mean() - brightness) > 150, "the views did not follow the scheme"


def test_colour_scale_slider(chromium: Chromium, tmp_path: Path) -> None:
    path = write_point_page(tmp_path, [scene_of_points(shift=0.05)])
    with opened(chromium, path) as page:
        page.click("input[value=distance]")
        assert page.evaluate("document.querySelector('#scale-end').textContent") == "0.05 scene units or more"
        raised = targets() + np.array([0, 0, 0.05])
        full = seen(page.pixels(LEFT), raised, look_at(EYE, TARGET))
        assert full.tolist() == [theme_colour(page, "--e3")] * 5
        page.evaluate("document.querySelector('#scale').focus()")
        page.key("End")
        assert page.evaluate("document.querySelector('#scale-end').textContent") == "5 scene units or more"
        low = seen(page.pixels(LEFT), raised, look_at(EYE, TARGET))
        assert np.abs(low.astype(int) - theme_colour(page, "--e0")).max() < 8


def test_cameras_are_drawn_and_can_be_hidden(chromium: Chromium, tmp_path: Path) -> None:
    second = look_at(TARGET + np.array([0.2, 1.2, 0.3]), TARGET)
    aside = look_at(TARGET + np.array([0.4, 1.2, 0.5]), TARGET)
    cameras = {
        "cameras_predicted": np.stack([aside, np.full((4, 4), np.nan)]),
        "cameras_truth": np.stack([look_at(EYE, TARGET), second]),
    }
    path = write_point_page(tmp_path, [scene_of_points(**cameras)])
    with opened(chromium, path) as page:
        names = {"predicted": theme_colour(page, "--predicted"), "true": theme_colour(page, "--true")}
        tips = {"predicted": aside, "true": second}

        def drawn(name: str) -> bool:
            canvas = page.pixels(RIGHT).astype(int)
            centre = np.linalg.inv(tips[name])[:3, 3]
            column, row = pixels_of(centre[None], canvas, look_at(EYE, TARGET))[0].astype(int)
            around = canvas[row - 3 : row + 4, column - 3 : column + 4]
            return bool((np.abs(around - names[name]).max(axis=2) < 12).any())

        assert drawn("predicted") and drawn("true")
        page.click("#cameras-predicted")
        assert not drawn("predicted") and drawn("true")
        page.click("#cameras-true")
        assert not drawn("predicted") and not drawn("true")
        notes = page.evaluate("document.querySelector('#notes').textContent")
        assert notes == "1 of 2 predicted cameras are not finite and not drawn."


def test_scenes_are_chosen_and_names_are_only_text(chromium: Chromium, tmp_path: Path) -> None:
    swapped = Cloud(targets(), COLOURS[::-1].copy())
    scenes = [
        scene_of_points(HOSTILE, facts={HOSTILE: HOSTILE}),
        scene_of_points("odd \udcff name", truth=swapped, facts={"Accuracy": "0.25", "nan": "not measured"}),
    ]
    path = write_point_page(tmp_path, scenes)
    text = path.read_text(encoding="utf-8")
    assert "http:" not in text and "https:" not in text and HOSTILE not in text
    with opened(chromium, path) as page:
        assert page.evaluate("[...document.querySelectorAll('#scene option')].map((o) => o.textContent)")[0] == HOSTILE
        assert page.evaluate(f"document.querySelector('{LEFT}').ariaLabel") == f"Predicted points of scene {HOSTILE}"
        assert page.evaluate("document.querySelector('dl[data-scene=\"0\"] dd').textContent") == HOSTILE
        assert page.evaluate("document.images.length") == 0
        shown = "[...document.querySelectorAll('dl[data-scene]')].map((e) => e.checkVisibility())"
        assert page.evaluate(shown) == [True, False]
        first = page.pixels(RIGHT)
        page.evaluate("document.querySelector('#scene').focus()")
        page.key("ArrowDown")
        assert page.evaluate("document.querySelector('#scene').value") == "1"
        assert page.evaluate(shown) == [False, True]
        second = page.pixels(RIGHT)
        assert not np.array_equal(first, second)
        assert seen(second, targets(), look_at(EYE, TARGET)).tolist() == COLOURS[::-1].tolist()
        assert page.evaluate("document.querySelectorAll('#metrics tbody tr').length") == 2


@pytest.mark.parametrize("width", [320, 390, 1024, 1440])
def test_nothing_overflows(chromium: Chromium, tmp_path: Path, width: int) -> None:
    many = {f"A rather long name of metric {k}": "0.123456 ± 0.0001" for k in range(9)}
    scenes = [scene_of_points("a-name-without-any-place-to-break-it-" * 4, facts=many), scene_of_points()]
    path = write_point_page(tmp_path, scenes)
    outside = """[...document.querySelectorAll("body *")].filter((e) => e.checkVisibility()
        && !e.closest(".scroll, .skip, option") && e.getBoundingClientRect().right > innerWidth + 0.5)
        .map((e) => e.outerHTML)"""
    with opened(chromium, path, width, 844, mobile=width < 500) as page:
        for layout in ("side", "overlay"):
            page.click(f"input[value={layout}]")
            page.click("input[value=distance]")
            assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
            assert page.evaluate(outside) == []
            assert page.pixels(LEFT).shape[1] > 0.4 * min(width, 1000) - 40


@pytest.mark.parametrize("empty", [np.zeros((0, 3)), np.full((7, 3), np.nan)])
def test_empty_clouds_say_so(chromium: Chromium, tmp_path: Path, empty: np.ndarray) -> None:
    nothing = Cloud(empty, np.zeros(empty.shape, dtype=np.uint8))
    none = np.zeros((0, 4, 4))
    scenes = [
        scene_of_points("no prediction", predicted=nothing),
        scene_of_points("nothing", predicted=nothing, truth=nothing, cameras_truth=none, facts={}),
    ]
    with opened(chromium, write_point_page(tmp_path, scenes)) as page:
        notes = "document.querySelector('#notes').textContent"
        assert page.evaluate(notes) == "The predicted cloud has no points to draw."
        assert len(np.unique(page.pixels(LEFT).reshape(-1, 3), axis=0)) == 1
        assert seen(page.pixels(RIGHT), targets(), look_at(EYE, TARGET)).tolist() == COLOURS.tolist()
        assert page.evaluate("document.querySelector('input[value=distance]').disabled")
        page.evaluate("document.querySelector('#scene').focus()")
        page.key("ArrowDown")
        assert page.evaluate(notes).count("no points") == 2
        page.click("#overview")
        page.drag(LEFT, 30, 30)


def test_large_clouds_are_sampled_and_the_page_stays_small(
    chromium: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_page, "POINTS_PER_CLOUD", 60_000)
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(200_000, 3))
    ball = TARGET + directions / np.linalg.norm(directions, axis=1, keepdims=True)
    cloud = Cloud(ball.astype(np.float32), np.full((len(ball), 3), (200, 30, 30), dtype=np.uint8))
    scene = scene_of_points(predicted=cloud, truth=cloud)
    path = write_point_page(tmp_path, [scene])
    assert 2 * 60_000 * 11 * 4 / 3 < path.stat().st_size < 2 * 60_000 * 11 * 4 / 3 + 60_000
    with opened(chromium, path) as page:
        assert "60\u202f000 of 200\u202f000 points." in page.evaluate(
            "document.querySelector('figcaption').textContent"
        )
        red = (page.pixels(LEFT) == [200, 30, 30]).all(axis=2)
        # The ball's outline: a disc of this radius around the middle
        radius = 0.5 * red.shape[0] / np.tan(np.radians(25)) * np.tan(np.arcsin(1 / np.linalg.norm(TARGET - EYE)))
        assert np.count_nonzero(red) == pytest.approx(np.pi * radius**2, rel=0.06)


def test_motion_is_gradual_unless_less_is_asked_for(chromium: Chromium, equal: Path) -> None:
    with opened(chromium, equal, motion="no-preference") as page:
        page.evaluate("performance.now = () => window.clock ?? 0")  # its time passes when we say so
        start = page.pixels(LEFT)
        page.evaluate("document.querySelector('#overview').click()")
        frames = []
        for milliseconds in (0, 100, 200, 400):
            page.evaluate(f"window.clock = {milliseconds}")
            page.settle()
            frames.append(page.pixels(LEFT))
        assert np.array_equal(frames[0], start)
        assert all(not np.array_equal(one, other) for one, other in itertools.pairwise(frames)), "it jumped"
    with opened(chromium, equal) as page:
        page.evaluate("document.querySelector('#overview').click()")
        page.settle()
        assert np.array_equal(page.pixels(LEFT), frames[-1])


def test_limits_are_shared_by_all_clouds() -> None:
    assert points_per_cloud(1) == 100_000
    assert points_per_cloud(100) == 10_000
    assert points_per_cloud(2_000_001) == 1


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="at least one scene"):
        write_point_page(tmp_path / "none", [])
    with pytest.raises(ValueError, match=r"cameras_truth of five must be \[N, 4, 4\]"):
        scene_of_points(cameras_truth=np.zeros((2, 3, 4)))
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="the point-cloud page cannot be written to"):
        write_point_page(tmp_path / "file", [scene_of_points()])
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(EnvironmentProblem, match=r"megasynth-attr\[report\]"):
        write_point_page(tmp_path / "none", [scene_of_points()])
    assert not (tmp_path / "none").exists()


def test_a_page_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = write_point_page(tmp_path, [scene_of_points("old")])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(EnvironmentProblem, match="file-size limit"):
            write_point_page(tmp_path, [scene_of_points("new")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert write_point_page(tmp_path, [scene_of_points("old")]).read_bytes() == before, "the page is not repeatable"
