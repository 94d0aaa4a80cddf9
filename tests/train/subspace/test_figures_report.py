"""The report's files: all figures, the same bytes again, odd analyses, and what the chapter names."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parent))
from synthetic_analysis import tiny

from megasynth_attr.core.errors import EnvironmentProblem
from megasynth_attr.core.pages.chapters import read_chapter, write_chapter
from megasynth_train.subspace.figures import chapter, write_report

PAPER = (246, 247, 249)


def least():
    return tiny(attributes=("only",), kinds=("qkv",), depth=1, splits=0, drift=False)


def small():
    return tiny(kinds=("qkv", "fc1"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(small(), tmp_path_factory.mktemp("figures") / "report")


def stems(folder):
    return {path.stem for path in (folder / "figures").glob("*.png")}


def test_every_figure_is_there_as_png_and_svg(report):
    found = stems(report.parent)
    assert found == {path.stem for path in (report.parent / "figures").glob("*.svg")}
    spectra = {f"spectrum_{i}_{a}_{t}_{k}" for i, a in enumerate(("texture", "geometry")) for t in ("frame", "global")
               for k in ("qkv", "fc1")}  # fmt: skip
    others = {
        "held_out",
        "mean_share",
        "tests",
        "alike",
        "coherence",
        "weights",
        "drift",
        "energy",
        "halves",
        "joint_cosines",
        "significant",
    }
    assert found == spectra | others | {"lambda_0_texture_geometry", "map_0_texture_geometry"}
    assert not (report.parent.parent / "tmp").exists() or not list((report.parent.parent / "tmp").iterdir())


def test_figures_are_not_empty_and_nothing_is_cut_off(report):
    for path in (report.parent / "figures").glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        ink = (np.abs(pixels.astype(int) - PAPER) > 12).any(axis=2)
        assert 0.01 < ink.mean() < 0.9, path.name
        border = np.concatenate([ink[:3].ravel(), ink[-3:].ravel(), ink[:, :3].ravel()])
        assert not border.any(), f"{path.name} touches its border"


def test_the_page_explains_every_figure(report):
    text = report.read_text(encoding="utf-8")
    shown = re.findall(r'<figure class="plot" id="([^"]+)">.*?</figure>', text, flags=re.S)
    assert set(shown) == stems(report.parent) and len(shown) == len(set(shown))
    for block in re.findall(r'<figure class="plot".*?</figure>', text, flags=re.S):
        assert re.search(r'alt="[^"]{60,}"', block)
        assert re.search(r"<b>Chance:</b> \S.{30,}", block)
    for address in re.findall(r'(?:href|src)="([^"#]+)"', text):
        assert (report.parent / address).is_file(), address


def test_the_same_analysis_gives_the_same_bytes(report, tmp_path):
    again = write_report(small(), tmp_path / "report")

    def hashes(folder):
        return {
            str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.*"))
        }

    assert hashes(report.parent) == hashes(again.parent)


@pytest.mark.parametrize(
    "changes",
    [
        {"attributes": ("only",), "kinds": ("qkv",)},
        {"adapters": 1, "kinds": ("qkv",), "drift": False},
        {"depth": 1, "kinds": ("strange",), "splits": 0, "drift": False},
        {"attributes": ("a$b_{", "<script>alert(1)</script>", 'a"b'), "kinds": ("fc1",), "depth": 1},
    ],
    ids=["one attribute", "one adapter", "no splits", "hostile names"],
)
def test_odd_analyses(tmp_path, changes):
    page = write_report(tiny(**changes), tmp_path / "r")
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S).lower().split()
    for address in re.findall(r'(?:href|src)="([^"#]+)"', text):
        assert (page.parent / address).is_file(), address


def test_zero_updates_and_layers_without_dimensions(tmp_path):
    analysis = tiny(kinds=("qkv",))
    layers = [
        dataclasses.replace(row, dimension=0, spectrum=(0.0,) * 4, null_median=(0.0,) * 4, null_upper=(0.0,) * 4,
                            significant=0, norms=(0.0,) * 3, coherence=((0.0,) * 3,) * 3, extractors=())
        if row.attribute == "texture" else dataclasses.replace(row, dimension=row.layer.depth)
        for row in analysis.layers
    ]  # fmt: skip
    pairs = [dataclasses.replace(row, angles_out_deg=(), angles_in_deg=()) for row in analysis.pairs]
    page = write_report(dataclasses.replace(analysis, layers=tuple(layers), pairs=tuple(pairs)), tmp_path / "r")
    assert "All updates of this attribute are zero" in page.read_text(encoding="utf-8")
    assert "dimension" in stems(page.parent) and "joint_cosines" not in stems(page.parent)


def test_an_older_report_is_replaced_and_kept_on_failure(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    write_report(least(), folder)
    (folder / "old.txt").write_text("old")
    broken = least()
    first = broken.layers[0]
    ragged = dataclasses.replace(first, extractors=(dataclasses.replace(first.extractors[0], weights=(1.0,)),))
    broken = dataclasses.replace(broken, layers=(ragged, *broken.layers[1:]))
    with pytest.raises(ValueError):
        write_report(broken, folder)
    assert (folder / "old.txt").is_file() and (folder / "index.html").is_file()
    write_report(least(), folder)
    assert not (folder / "old.txt").exists()


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="report cannot be written"):
        write_report(least(), tmp_path / "file" / "report")


def test_the_chapter_names_what_is_there(report, tmp_path):
    folder = report.parent.parent
    (folder / "analysis.json").write_text("{}")
    found = chapter(small(), folder)
    write_chapter(folder, found)
    assert read_chapter(folder) == found
    assert 2 <= len(found.pictures) <= 4
    for name in [p.file for p in found.pictures] + [link.file for link in found.links]:
        assert (folder / name).is_file(), name
    assert "6 adapters of 2 attributes (3 each), mined in 8 layers." in found.lead
    assert "chance" in found.lead and found.caveat
    without = chapter(small(), tmp_path)
    assert without.pictures == () and [link.file for link in without.links] == ["analysis.json"]


def test_matplotlib_is_left_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_report(least(), tmp_path / "r")
    assert dict(matplotlib.rcParams) == before
