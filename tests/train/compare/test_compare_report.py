"""What a comparison says about numbers made up for it, and its page in a real browser."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from browser_probe import running_chromium

from megasynth_train.compare.collect import Missing, Results, Row
from megasynth_train.compare.report import Report, write_report
from megasynth_train.compare.statistics import METRICS
from megasynth_train.compare.table import cells, header, make_table
from megasynth_train.compare.text import caveat, lead, markdown
from megasynth_train.evaluate.protocols import PROTOCOLS

SCENES = ("room/0", "room/1")
TRAINED = {
    "heads": 70_000, "full": 850_000_000, "lora-16": 16_300_000, "lora-64": 54_000_000, "dora-16": 16_600_000,
    "pissa-16": 16_300_000, "adalora-16": 16_400_000, "lora_xs-64": 4_500_000, "subspace": 3_900_000,
    "subspace-block": 3_850_000, "random": 3_900_000, "without-texture": 3_840_000,
}  # fmt: skip


def row(method: str, seed: int | None, level: float, scenes: tuple[str, ...] = SCENES, **more: Any) -> Row:
    """Return a run whose every error is about ``level`` and every score about 1 - level."""
    rng = np.random.default_rng([0 if seed is None else seed + 1, len(method)])
    values = {m.key: 1 - level if m.higher_is_better else level for m in METRICS}
    noisy = {scene: {key: value + 0.001 * float(rng.normal()) for key, value in values.items()} for scene in scenes}
    total = TRAINED.get(method, 0)
    parts = {"aggregator": total * 3 // 4, "heads": total - total * 3 // 4, "encoder": 0}
    return Row(method, seed, parts, 12.5, 1.5, 0, noisy, more.get("excluded", ()), Path("nowhere"))


def results(*rows: Row, missing: tuple[Missing, ...] = ()) -> Results:
    return Results(rows, missing, "median")


def said(found: Results, reference: str = "heads") -> str:
    return lead(found, make_table(found, reference))


def test_a_clear_difference_is_called_one_and_an_unclear_one_is_not() -> None:
    clear = results(*(row("heads", s, 0.5) for s in range(4)), *(row("lora-16", s, 0.2) for s in range(4)))
    assert "lora-16 is best" in said(clear) and "is distinguishable from zero" in said(clear)
    assert "Next is heads" in said(clear) and "by NC: lora-16" in said(clear)
    close = results(*(row("heads", s, 0.5) for s in range(4)), *(row("lora-16", s, 0.5) for s in range(4)))
    assert "is not distinguishable from zero" in said(close)
    equal = results(
        *(replace(row(name, 0, level), seed=s) for name, level in (("heads", 0.5), ("lora-16", 0.2)) for s in range(3))
    )
    assert "with each of 3 seeds: without spread there is" in said(equal) and "no interval" in said(equal)


def test_one_seed_claims_nothing() -> None:
    single = results(row("heads", 0, 0.5), row("lora-16", 0, 0.2))
    assert "cannot be told from chance" in said(single) and "distinguishable" not in said(single)
    assert "no ranking can be claimed" in caveat(single, make_table(single, "heads"), 2, {})
    assert "±" not in markdown(single, make_table(single, "heads"), 2, {}).split("## Results")[1].split("| method")[1]


def test_without_results_or_rivals_the_lead_says_so() -> None:
    assert "No method has a result" in said(results())
    assert "nothing to compare it with" in said(results(row("heads", 0, 0.5)))
    apart = results(row("heads", 0, 0.5), row("lora-16", 1, 0.2))
    assert "share no seed" in said(apart)


def test_only_scenes_that_all_runs_have_are_averaged() -> None:
    uneven = results(row("heads", 0, 0.5), row("lora-16", 0, 0.2, SCENES[:1], excluded=SCENES[1:]))
    assert uneven.scenes == SCENES[:1] and [one.method for one in uneven.uneven] == ["lora-16"]
    assert uneven.values("heads", "accuracy")[0] == uneven.rows[0].scenes["room/0"]["accuracy"]
    assert "lora-16, seed 0: room/1" in markdown(uneven, make_table(uneven, "heads"), 2, {})


def test_a_metric_that_a_scene_lacks_is_a_dash() -> None:
    broken = row("lora-16", 0, 0.2)
    broken.scenes["room/1"]["normals"] = None
    found = results(row("heads", 0, 0.5), broken)
    assert found.values("lora-16", "normals") == {} and found.values("lora-16", "accuracy")
    line = next(line for line in markdown(found, make_table(found, "heads"), 2, {}).splitlines() if "| lora-16" in line)
    assert " – " in line


def test_a_protocol_adds_the_papers_columns_in_its_units() -> None:
    """thuman's unit of length is two of ours: × 1000 / 2; NC × 100."""
    found = results(*(row("heads", s, 0.5) for s in range(3)), row("base", None, 0.4))
    plain, of_paper = (make_table(found, "heads", protocol) for protocol in (None, PROTOCOLS["thuman"]))
    (names, *lines), (_, *usual) = (([header(table), *cells(table)]) for table in (of_paper, plain))
    assert names == [*header(plain)[:-2], "Acc, paper", "Comp, paper", "NC, paper", "seconds", "n"]
    means = of_paper.row("heads").metrics
    expected = [500 * means["accuracy"].mean, 500 * means["completeness"].mean, 100 * means["normals"].mean]  # type: ignore[operator]
    assert [float(cell.partition(" ±")[0]) for cell in lines[0][-5:-2]] == pytest.approx(expected, rel=1e-3)
    spread = float(lines[0][-5].partition("± ")[2])
    assert spread == pytest.approx(500 * means["accuracy"].std, rel=0.05)  # type: ignore[operator]
    assert [line[:-5] + line[-2:] for line in lines] == usual
    said = markdown(found, of_paper, 2, {})
    assert "| Acc, paper | Comp, paper | NC, paper |" in said and "protocol thuman: Acc and Comp: mean × 1000" in said
    assert "paper" not in markdown(found, plain, 2, {})


def big_report(out: Path) -> Report:
    """Write the report of a comparison with many methods, of which one failed, on test data of a protocol."""
    levels = {name: 0.3 - 0.02 * i for i, name in enumerate(TRAINED)}
    rows = [row("base", None, 0.4), *(row(name, seed, level) for name, level in levels.items() for seed in range(3))]
    rows = [Row(**{**vars(one), "evaluation": out / "runs" / one.method / "evaluation"}) for one in rows]
    for one in rows:
        one.evaluation.mkdir(parents=True, exist_ok=True)
        (one.evaluation / "index.html").write_text("clouds")
    modes = {"heads": "heads", "full": "full"}
    methods = {name: {"adapter": {"mode": modes.get(name, "lora")}, "basis": ""} for name in TRAINED}
    manifest = {
        "identity": {"model.size": "vggt-1b", "optim.steps": 24000, "test.protocol": "clearpose"},
        "methods": {"base": {"adapter": None, "basis": ""}} | methods,
        "seeds": [0, 1, 2], "scenes": {"training": 1000, "test": 2, "seen": []}, "order": [],
    }  # fmt: skip
    lost = Missing("rslora-16", 0, "ConfigError: 21 steps in a row were not finite and were skipped")
    return write_report(out, manifest, results(*rows, missing=(lost,)), "subspace")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report; it may only be written again."""
    out = tmp_path_factory.mktemp("report") / "a comparison"
    out.mkdir()
    assert big_report(out).table.protocol == PROTOCOLS["clearpose"]
    return out


def test_writing_a_report_again_replaces_it_whole(folder: Path) -> None:
    for file in ("comparison.md", "index.html", "chapter.json"):
        assert "Acc, paper" in (folder / file).read_text()
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"}
    big_report(folder)
    assert {
        path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"
    } == before
    assert sorted(path.name for path in folder.iterdir() if path.name != "tmp") == [
        "chapter.json", "comparison.json", "comparison.md", "index.html", "pictures", "runs",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_page_reads_on_laptop_and_phone(folder: Path, tmp_path: Path) -> None:
    url = (folder / "index.html").as_uri()
    with running_chromium(tmp_path / "profile") as browser:
        for width, height, more in ((1280, 900, {}), (390, 844, {"mobile": True})):
            with browser.page(url, width, height, **more) as page:
                assert page.complaints() == []
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0 && i.alt)")
                assert all(address.startswith("file:") for address in page.requested())
                links = page.evaluate("[...document.querySelectorAll('main a')].map((a) => a.href)")
                ids = page.evaluate(
                    "[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))"
                )
                assert ids and len(links) > 30 and all(link.startswith("file:") for link in links)
                assert "rslora-16, seed 0" in page.evaluate("document.querySelector('#missing').innerText")
