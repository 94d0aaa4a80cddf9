"""The pages: what they say, what they name as missing, and what they refuse."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ray_cast_experiment import Size, raycast, write_dataset

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem, ExitCode
from megasynth_attr.core.pages.words import in_words, size_text
from megasynth_attr.dataset.record_file import sealed
from megasynth_attr.report.checks import read_verification
from megasynth_attr.report.facts import hash_rows, licence_counts, read_facts, settings_text
from megasynth_attr.report.images import on_paper
from megasynth_attr.report.page import write_report
from megasynth_attr.report.pictures import Limits
from megasynth_attr.scene.settings import WriteSettings
from megasynth_attr.scene.spec import ScanRef, scene_from_json, scene_to_json


class Links(html.parser.HTMLParser):
    """Collects what a page refers to, ids, and images without a description."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.files: list[str] = []
        self.anchors: list[str] = []
        self.ids: set[str] = set()
        self.undescribed: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            assert values["id"] not in self.ids, f"id {values['id']} twice"
            self.ids.add(str(values["id"]))
        for key in ("src", "href", "srcset"):
            if link := values.get(key):
                (self.anchors if link.startswith("#") else self.files).append(link)
        if tag == "img" and "alt" not in values:
            self.undescribed.append(str(values.get("src")))


def pages(index: Path) -> list[Path]:
    return [index, *sorted(index.parents[1].glob("*_00/report/index.html"))]


def text_of(page: Path) -> str:
    """Return the words of a page, tags and repeated spaces removed."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def copy_of(experiment: Path, tmp_path: Path, name: str = "texture_00") -> Path:
    return Path(shutil.copytree(experiment / name, tmp_path / name))


def test_every_link_is_a_file_that_exists(index: Path) -> None:
    assert len(pages(index)) == 3
    for page in pages(index):
        links = Links(page)
        assert links.files
        assert not links.undescribed
        for link in links.files:
            assert not re.match(r"[a-z]+:|//|/", link), f"{page}: {link} is not relative"
            assert (page.parent / link).resolve().is_file(), f"{page}: {link} is missing"
        assert {a[1:] for a in links.anchors} <= links.ids
        assert "http" not in page.read_text(encoding="utf-8")


def test_nothing_is_written_that_no_page_shows(index: Path) -> None:
    shown = {(page.parent / link).resolve() for page in pages(index) for link in Links(page).files}
    for page in pages(index):
        left = {p.resolve() for p in page.parent.iterdir()} - shown - {page.resolve()}
        assert not left


def test_complete_dataset_states_what_was_measured(experiment: Path, index: Path) -> None:
    text = text_of(experiment / "texture_00/report/index.html")
    assert "texture (4 values) differs; geometry, camera and lighting are equal to the bit" in text
    assert "Scenes 4 of 4" in text and "Frames 24" in text and "56 × 42 px" in text and "52.0°" in text
    assert "Verification passed" in text
    assert "100.000% of" in text and "co-visible pixels agree" in text
    assert "The scenes use 5 materials: 4 under CC0-1.0, 1 under CC BY 4.0." in text
    assert "a <scan>" in text, "file contents must be escaped, not interpreted"
    assert "4 scenes by Blender 5.0.1 · cpu · draft" in text
    assert "not been" not in text
    files = list((experiment / "texture_00/scenes").rglob("*.*"))
    assert f"{size_text(sum(f.stat().st_size for f in files))}" in text
    assert "fov_x_deg: 45 … 70" in text and "sun_irradiance: 0.5 … 5, log-uniform" in text


def test_settings_of_an_unknown_factor_are_shown_as_they_are() -> None:
    given = {"one_of": [1, 2]}
    config = {"content": {"seed": 3}, "factors": {"fog": {"density": given}, "camera": {"fov_x_deg": given}}}
    text = settings_text(config)
    assert "seed: 3" in text and "    density:\n      one_of: [1,2]" in text and "fov_x_deg: one of 1, 2" in text


def test_missing_parts_are_named(experiment: Path, index: Path) -> None:
    text = text_of(experiment / "camera_00/report/index.html")
    assert "Scenes 3 of 4" in text
    assert "Verification not run" in text
    for sentence in (
        "Isolation has not been measured. Run the stage verify",
        "dataset.json lists no factor hashes yet. Run the stage generate",
        "This dataset has not been verified. Run the stage verify",
        "dataset.json lists no materials yet. Run the stage generate",
    ):
        assert sentence in text
    summary = text_of(index)
    assert "Not measured for camera_00" in summary and "isolation not measured" in summary
    assert "2 datasets, 7 complete scenes, 42 frames" in summary


def test_contact_sheet_shows_frame_0_of_the_scenes_that_exist(experiment: Path, index: Path) -> None:
    from megasynth_attr.dataset.reader import open_dataset

    folder = experiment / "camera_00"
    sheet = np.asarray(Image.open(folder / "report/contact_sheet.png")).astype(float)
    scenes = open_dataset(folder).scenes
    assert [s.name for s in scenes] == ["000000", "000001", "000003"]
    for column, scene in enumerate(scenes):
        x = 12 + column * 212
        cell = Image.fromarray(sheet[12:162, x : x + 200].astype(np.uint8)).resize((56, 42), Image.Resampling.BOX)
        difference = np.abs(np.asarray(cell, dtype=float) - on_paper(scene.views[0].image))
        assert np.median(difference) <= 3 and difference.mean() < 6


def test_strip_shows_the_stated_frames(experiment: Path, index: Path) -> None:
    from megasynth_attr.dataset.reader import open_dataset

    views = open_dataset(experiment / "texture_00").scenes[2].views
    picture = np.asarray(Image.open(experiment / "texture_00/report/frames_000002.jpg"))
    assert picture.shape == (144, 6 * 192, 3)
    for column in range(6):
        part = Image.fromarray(picture[:, column * 192 : (column + 1) * 192]).resize((56, 42), Image.Resampling.BOX)
        errors = [np.abs(np.asarray(part, dtype=float) - on_paper(v.image)).mean() for v in views]
        assert int(np.argmin(errors)) == column


def test_the_three_lines_on_the_page_run(experiment: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (experiment / "texture_00/report/index.html").read_text(encoding="utf-8")
    code = html.unescape(re.search(r"<code>(from megasynth_attr.*?)</code>", page, re.S)[1])  # type: ignore[index]
    assert len(code.splitlines()) == 3
    monkeypatch.chdir(experiment)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["view"].rgb.shape == (42, 56, 3)  # type: ignore[attr-defined]


def test_two_reports_of_the_same_data_are_equal_to_the_bit(experiment: Path, index: Path, tmp_path: Path) -> None:
    copy = copy_of(experiment, tmp_path)
    before = {p.name: p.read_bytes() for p in (copy / "report").iterdir()}
    (copy / "report/stale.png").write_bytes(b"of an older report")
    write_report(tmp_path, progress=False)
    after = {p.name: p.read_bytes() for p in (copy / "report").iterdir()}
    assert after == before
    assert list(copy.glob("tmp/*")) == []


def test_one_dataset_folder_gives_its_page_alone(experiment: Path, index: Path, tmp_path: Path) -> None:
    copy = copy_of(experiment, tmp_path)
    assert "python -m megasynth_attr.dataset.view dataset=texture_00" in text_of(copy / "report/index.html")
    assert "Which mesh" not in text_of(copy / "report/index.html")
    (copy / "view").mkdir()
    (copy / "view/a <b>#1.html").write_text("")
    for number, file in enumerate(sorted(copy.glob("scenes/*/*/scene.json"))):  # as if they showed files of a folder
        scene = scene_from_json(file.read_text())
        geometry = replace(scene.factors["geometry"], scan=ScanRef(f"a/<{number}>.obj", "0" * 64, ""))
        file.write_text(scene_to_json(replace(scene, factors={**scene.factors, "geometry": geometry})))
    record = json.loads((copy / "dataset.json").read_text())
    record["config"]["factors"]["geometry"]["layout"] = "scan"
    (copy / "dataset.json").write_text(json.dumps(sealed(record)))
    page = write_report(
        copy, limits=Limits(sheet_scenes=2, grid_scenes=2, grid_frames=3, hash_scenes=2), progress=False
    )
    assert '<a href="../view/a%20%3Cb%3E%231.html">a &lt;b&gt;#1.html</a>.' in page.read_text()
    assert "megasynth_attr.dataset.view" not in text_of(page)
    assert page == copy / "report/index.html"
    assert not (tmp_path / "report").exists()
    text = text_of(page)
    assert "Which mesh each scene shows Scene Mesh 000000 a/<0>.obj 000001 a/<1>.obj 000002" in text
    assert "All datasets" not in text
    assert "2 of 4 complete scenes, evenly spread" in text and "the first 2 of 4" in text
    assert sorted(p.name for p in page.parent.glob("frames_*")) == ["frames_000000.jpg", "frames_000003.jpg"]


def test_dataset_without_a_scene_says_so(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, "lighting", Size(), write=WriteSettings(), scenes=[], finalised=False)
    (folder / "failures").mkdir()
    failure = {"scene": "lighting_00/000002", "stage": "render", "error": "RenderError", "message": "black <frame>"}
    (folder / "failures/000002.json").write_text(json.dumps(failure | {"attempts": 2}))
    text = text_of(write_report(tmp_path, progress=False))
    assert "0 of 4 scenes" in text and "1 failed" in text
    page = text_of(folder / "report/index.html")
    assert "No scene is complete yet" in page
    assert "lighting_00/000002 render RenderError: black <frame> 2" in page


def test_one_scene_of_one_frame(tmp_path: Path) -> None:
    write_dataset(tmp_path, "lighting", Size(1, 1), write=WriteSettings(), isolation={"lighting": 1.0})
    text = text_of(write_report(tmp_path, progress=False))
    assert "1 dataset, 1 complete scene, 1 frame," in text


def test_failed_and_outdated_verification_is_shown(experiment: Path, tmp_path: Path) -> None:
    from megasynth_attr.dataset.verify import verify_dataset

    copy = copy_of(experiment, tmp_path)
    picture = copy / "scenes/000/000001/rgb/0002.png"
    picture.write_bytes(picture.read_bytes()[:-9])
    assert not verify_dataset(copy, progress=False).passed
    shutil.rmtree(copy / "scenes/000/000001")
    text = text_of(write_report(copy, progress=False))
    assert "Verification failed" in text and "✗ fail" in text
    assert "000001/rgb/0002.png" in text
    assert "4 scenes were verified, 3 are complete now" in text


def test_reference_that_is_still_is_shown_as_not_measured(tmp_path: Path) -> None:
    relative = {"geometry": None, "texture": 0.9, "camera": 0.0, "lighting": 0.0}
    write_dataset(tmp_path, "texture", Size(2, 2), write=WriteSettings(), isolation=relative)
    assert "geometry not measured, texture 0.90, camera 0.00" in write_report(tmp_path, progress=False).read_text()


def test_hash_rows_give_equal_ranks_to_equal_hashes(experiment: Path) -> None:
    from megasynth_attr.dataset.reader import open_dataset

    scenes, rows = hash_rows(read_facts(open_dataset(experiment / "texture_00")), limit=3)
    assert scenes == ["000000", "000001", "000002"]
    ranks = {name: [rank for _, rank in cells] for name, _, cells in rows}
    assert ranks == {
        f: [0, 1, 2] if f == "texture" else [0, 0, 0] for f in ("geometry", "texture", "camera", "lighting", "noise")
    }
    assert {name: distinct for name, distinct, _ in rows}["texture"] == 4


def test_nothing_to_report_on_is_a_dataset_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DatasetError, match="dataset"):
            write_report(folder, progress=False)
    assert list(tmp_path.iterdir()) == []


def changed(text: str, key: str, value: object) -> str:
    return json.dumps(json.loads(text) | {key: value})


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("dataset.json", lambda text: text[:-40]),
        ("dataset.json", lambda text: text.replace('"scope"', '"scoop"')),
        ("dataset.json", lambda text: changed(text, "isolation", [1])),
        ("dataset.json", lambda text: changed(text, "isolation", {"reference": "all", "scenes": 2, "relative": ["x"]})),
        ("dataset.json", lambda text: changed(text, "conventions", ["pixels"])),
        ("dataset.json", lambda text: changed(text, "fingerprint", 7)),
        ("verify.json", lambda text: text.replace("agreeing_share", "agreed")),
        ("scenes/000/000001/cameras.json", lambda text: text[:-40]),
    ],
)
def test_damaged_dataset_is_named_and_the_old_report_stays(
    experiment: Path, index: Path, tmp_path: Path, file: str, damage: object
) -> None:
    copy = copy_of(experiment, tmp_path)
    path = copy / file
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    before = {p.name: p.read_bytes() for p in (copy / "report").iterdir()}
    with pytest.raises(DatasetError, match=re.escape(path.name)) as caught:
        write_report(copy, progress=False)
    assert caught.value.exit_code == ExitCode.USAGE
    assert {p.name: p.read_bytes() for p in (copy / "report").iterdir()} == before
    assert list(copy.glob("tmp/*")) == []


def test_damaged_picture_is_named(experiment: Path, tmp_path: Path) -> None:
    copy = copy_of(experiment, tmp_path)
    picture = copy / "scenes/000/000000/rgb/0000.png"
    picture.write_bytes(picture.read_bytes()[:300])
    with pytest.raises(DatasetError, match=re.escape(str(picture))):
        write_report(copy, progress=False)


def test_folder_that_cannot_be_written_is_an_environment_problem(experiment: Path, tmp_path: Path) -> None:
    copy = copy_of(experiment, tmp_path)
    shutil.rmtree(copy / "tmp", ignore_errors=True)
    (copy / "tmp").write_text("a file where the folder should be")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        write_report(copy, progress=False)


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_missing_library_names_the_extra(experiment: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # what Python itself does for a module that must not be found
    with pytest.raises(EnvironmentProblem, match=rf"{library}.*megasynth-attr\[report\]"):
        write_report(experiment, progress=False)


@pytest.mark.parametrize(("scenes", "verdict"), [(4, "passed"), (2, "passed for 2 of 4 scenes"), (0, "failed")])
def test_a_verification_of_few_scenes_says_so(experiment: Path, tmp_path: Path, scenes: int, verdict: str) -> None:
    record = json.loads((experiment / "texture_00/verify.json").read_text())
    assert record["passed"] and record["scene_count"] == 4
    file = tmp_path / "verify.json"
    file.write_text(json.dumps({**record, "scenes": scenes, "findings": []}))  # 0 scenes: as older versions wrote it
    found = read_verification(file)
    assert found is not None and found.verdict == verdict
    passed = {check.name: check.passed for check in found.checks}
    assert passed["completeness"] is {4: True, 2: None, 0: False}[scenes]
    assert passed["files"] is passed["exposure"] is (True if scenes else None)


def test_unverified_is_none(tmp_path: Path) -> None:
    assert read_verification(tmp_path / "verify.json") is None


def test_sizes_and_words() -> None:
    shown = [size_text(n) for n in (0, 999, 1000, 12_345, 999_960, 4_560_000, 3.2e12, 7e15)]
    assert shown == ["0 B", "999 B", "1 kB", "12.3 kB", "1 MB", "4.56 MB", "3.2 TB", "7e+03 TB"]
    assert [in_words(w) for w in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert licence_counts([{"license": "B"}, {"license": ""}, {"license": "B"}]) == [("B", 2), ("not stated", 1)]
    assert raycast.World().floor < 0
