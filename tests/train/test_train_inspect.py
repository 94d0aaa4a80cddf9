"""``python -m megasynth_train.inspect``: what it says of right and of wrong folders, and what the picture shows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import layout_folders
import numpy as np
import pytest
import synthetic
from PIL import Image

from megasynth_attr.core.errors import ConfigError, DatasetError, ExitCode, run_main
from megasynth_attr.dataset.images import write_exr
from megasynth_train import inspect
from megasynth_train.data.agreement import warp
from megasynth_train.data.scene import our_scene


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return synthetic.write_dataset(synthetic.config(), tmp_path_factory.mktemp("ours"))


@pytest.fixture
def scans(ours, tmp_path):
    """Three scenes in ScanNet's layout, each with a lost pose; they may be damaged."""
    return layout_folders.write_scannet(tmp_path / "scans", ours)


def inspected(capsys, *words) -> tuple[int, dict[str, str], str]:
    """Return the exit code, the lines by their names, and what was said on stderr."""
    code = run_main(inspect.main, [*map(str, words), "progress=false"])
    said = capsys.readouterr()
    return code, dict(re.split(r"\s{2,}", line, maxsplit=1) for line in said.out.splitlines()), said.err


def test_every_line_of_a_right_folder(ours, scans, tmp_path, capsys):
    picture = tmp_path / "new" / "look.png"
    code, lines, said = inspected(capsys, f"data={scans}", f"picture={picture}")
    assert (code, said) == (0, "")
    assert lines == {
        "layout": "ScanNet's (color/, depth/, pose/, intrinsic/)",
        "scenes": "3: scans/000000, scans/000001, scans/000002",
        "views": "15, 5 in each scene",
        "size": "70×56 px",
        "field of view": "55.0° wide, 45.2° high",
        "depth": lines["depth"],
        "valid depth": lines["valid depth"],
        "reprojection": lines["reprojection"],
        "left out": "1 frame whose pose is not finite: the camera was lost (scans/000000 and 2 more)",
        "verdict": "cameras and depth agree",
        "picture": str(picture),
    }
    pattern = r"(\S+) to (\S+) scene units, median (\S+) \(files: in 0\.001\)"
    low, high, middle = re.fullmatch(pattern, lines["depth"]).groups()
    views = [view for scene in layout_folders.scenes_of(ours) for view in scene.views if view.index != 1]
    known = np.concatenate([view.depth_z[view.depth_z > 0] for view in views])
    share = len(known) / sum(view.depth_z.size for view in views)
    assert lines["valid depth"] == f"{100 * share:.1f} % of the pixels, in all scenes"
    np.testing.assert_allclose([float(low), float(middle), float(high)], np.percentile(known, (1, 50, 99)), rtol=0.05)
    error, depth = re.match(r"([0-9.]+) px and ([0-9.]+) % of depth between", lines["reprojection"]).groups()
    assert float(error) < 0.5 and float(depth) < 0.1
    with Image.open(picture) as image:
        assert image.width > 800 and image.height > 600


def test_our_own_dataset_and_no_picture(ours, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines, _ = inspected(capsys, f"data={ours}", "picture=")
    assert code == 0 and lines["layout"] == "ours (dataset.json)" and lines["verdict"] == "cameras and depth agree"
    assert "files" not in lines["depth"] and "picture" not in lines and not list(tmp_path.glob("*.png"))
    assert inspected(capsys, f"data={ours}")[1]["picture"] == "inspect.png" and (tmp_path / "inspect.png").is_file()


def test_a_wrong_axis_is_named_and_seen(scans, tmp_path, capsys):
    """Poses the other way round: exit code 2, and a picture in which hardly anything of the neighbour is left."""
    for file in scans.glob("*/pose/*.txt"):
        pose = np.loadtxt(file)
        if np.isfinite(pose).all():
            np.savetxt(file, np.linalg.inv(pose))
    code, lines, said = inspected(capsys, f"data={scans}", f"picture={tmp_path / 'look.png'}")
    assert code == ExitCode.USAGE and (tmp_path / "look.png").is_file()
    assert "poses are inverted: they are the other way round" in lines["verdict"] and "poses are inverted" in said


def test_millimetres_are_named_with_the_unit_to_give(scans, capsys):
    code, lines, _ = inspected(capsys, f"data={scans}", "depth_unit=1", "picture=")
    assert code == ExitCode.USAGE and lines["verdict"].endswith("say depth_unit=0.001")
    assert inspected(capsys, f"data={scans}", "picture=", "depth_unit=0.001")[0] == 0


def test_what_cannot_be_read_is_counted(scans, capsys):
    for file in (scans / "000001/pose").iterdir():
        file.write_text("lost")
    code, lines, _ = inspected(capsys, f"data={scans}", "picture=")
    assert code == 0 and lines["scenes"] == "2: scans/000000, scans/000002"
    assert re.search(r"; 1 scene cannot be read, first .*000001/pose/0\.txt is damaged", lines["left out"])
    shutil.rmtree(scans / "000000")
    shutil.rmtree(scans / "000002")
    code, _, said = inspected(capsys, f"data={scans}", "picture=")
    assert code == ExitCode.USAGE and "none of the 1 scene can be read" in said


def test_without_depth(scans, capsys):
    for folder in scans.glob("*/depth"):
        shutil.rmtree(folder)
        folder.mkdir()
    code, lines, _ = inspected(capsys, f"data={scans}", "picture=")
    assert code == 0 and lines["reprojection"] == "unknown without depth"
    assert (
        lines["depth"] == "none; python -m megasynth_train.predict can use this folder, training and evaluation cannot"
    )
    assert lines["verdict"] == "nothing speaks against cameras and depth, but nothing could be compared"


def test_without_valid_depth(ours, tmp_path, capsys):
    root = layout_folders.write_wai(tmp_path / "wai", ours)
    for file in root.glob("*/depth/*.exr"):
        write_exr(file, {"Z": np.full((56, 70), np.nan, np.float32)})
    code, lines, said = inspected(capsys, f"data={root}", "picture=")
    assert code == ExitCode.USAGE and lines["depth"] == "no pixel has a valid one" and lines["valid depth"][:3] == "0.0"
    assert "none of the views looked at in wai/000000 has a pixel of valid depth" in said


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ([], ConfigError, r"data= is missing: name a folder, e\.g\. data=runs/demo/texture_00"),
        (
            ["data={}", "picture=look.jpg"],
            ConfigError,
            r"picture=look\.jpg: the picture is a PNG; end the name in \.png",
        ),
        (["data={}/nowhere"], DatasetError, r"data=.*nowhere: there is no such folder"),
        (["data={}", "format=wai"], DatasetError, r"holds no scene in WAI's layout \(scene_meta\.json\)"),
        (["data={}", "scenes=7"], ConfigError, r"out of range"),
    ],
)
def test_bad_words(scans, words, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        inspect.main([word.replace("{}", str(scans)) for word in words])
    assert [path.name for path in tmp_path.iterdir()] == [scans.name]


def test_a_warped_neighbour_is_the_view(ours):
    """Where the neighbour is not occluded, its picture from the view's place is the view's picture."""
    a, b = our_scene("scene", layout_folders.scenes_of(ours)[0].path).read_views([0, 1])
    seen, known = warp(a, b)
    assert 0.2 < known.mean() < 0.7 and not known[a.depth_z == 0].any()
    difference = np.abs(seen.astype(int) - a.rgb)[known].mean(axis=-1)
    assert np.median(difference) < 12  # of shading and resampling
    same, where = warp(a, a)
    assert (where <= (a.depth_z > 0)).all() and where.sum() > 0.9 * (a.depth_z > 0).sum()  # rounding at the border
    np.testing.assert_allclose(same[where].astype(int), a.rgb[where], atol=1)


def test_from_the_command_line(scans):
    command = [sys.executable, "-m", "megasynth_train.inspect", f"data={scans}", "picture=", "progress=false"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=scans)
    assert done.stdout.startswith("layout         ScanNet's") and done.stderr == ""
