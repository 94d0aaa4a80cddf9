"""The procedural bank: number, range, tileability, determinism, scaling, the shipped index, the cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from megasynth_attr.core.errors import ConfigError, DatasetError
from megasynth_attr.textures.bank import DiskBank, open_bank
from megasynth_attr.textures.procedural.bank import main, write_bank
from megasynth_attr.textures.procedural.noise import Tile
from megasynth_attr.textures.procedural.recipes import BANK_SEED, Recipe, read_recipes, recipes_path
from megasynth_attr.textures.records import CATEGORIES
from megasynth_attr.textures.surface import MAPS, Surface, statistics_of

RECIPES = read_recipes(recipes_path())
SIZE = 96


@pytest.fixture(scope="module")
def painted() -> dict[str, dict[str, np.ndarray]]:
    return {name: recipe.maps(SIZE) for name, recipe in RECIPES.items()}


def test_there_are_many_materials_in_every_class() -> None:
    assert len(RECIPES) >= 64
    counts = {category: sum(r.category == category for r in RECIPES.values()) for category in CATEGORIES}
    assert min(counts.values()) >= 5, counts
    assert len({recipe.identity for recipe in RECIPES.values()}) == len(RECIPES)


def test_maps_have_the_stated_form(painted) -> None:
    for name, maps in painted.items():
        assert tuple(maps) == MAPS, name
        for map_name, pixels in maps.items():
            shape = (SIZE, SIZE, 3) if map_name in ("basecolor", "normal") else (SIZE, SIZE)
            assert pixels.shape == shape and pixels.dtype == np.uint8, (name, map_name)
        normal = maps["normal"] / 127.5 - 1
        assert np.abs(np.linalg.norm(normal, axis=-1) - 1).max() < 0.02, name
        assert normal[..., 2].min() > -0.01 and abs(normal[..., :2].mean()) < 0.06, name  # no overall slope


def test_colours_and_reflectance_are_plausible(painted) -> None:
    for name, maps in painted.items():
        measured = statistics_of(maps)
        luminance = float(np.dot(measured.mean_linear_rgb, (0.2126, 0.7152, 0.0722)))
        assert 0.035 < luminance < 0.8, (name, luminance)
        assert 0.05 < measured.mean_roughness < 0.99, name
    metals = [m for name, m in painted.items() if RECIPES[name].category == "metal"]
    others = [m for name, m in painted.items() if RECIPES[name].category in ("wood", "stone", "ground", "concrete")]
    assert np.mean([m["metallic"].mean() for m in metals]) > 150 and max(m["metallic"].max() for m in others) == 0


def test_materials_look_different(painted) -> None:
    thumbs = {n: np.asarray(Image.fromarray(m["basecolor"]).resize((24, 24))).astype(float) for n, m in painted.items()}
    names = list(thumbs)
    for i, first in enumerate(names):
        for second in names[:i]:
            assert np.abs(thumbs[first] - thumbs[second]).mean() > 2.0, (first, second)


def test_borders_are_as_smooth_as_the_inside(painted) -> None:
    """The step across the border is hardly larger than the largest of the steps between neighbouring lines inside."""
    for name, maps in painted.items():
        for map_name, pixels in maps.items():
            image = pixels.astype(float).reshape(SIZE, SIZE, -1)
            for axis in (0, 1):
                step = np.abs(np.roll(image, -1, axis) - image).mean(axis=(1 - axis, 2))
                assert step[-1] <= 1.15 * step[:-1].max() + 1.0, (name, map_name, axis)


def _half_moved(recipe: Recipe, size_px: int) -> tuple[Surface, Surface]:
    """Return the tile, and the tile painted from its middle on (over its border) and moved back."""
    plain = recipe.surface(size_px)
    moved = recipe.paint(Tile(f"{BANK_SEED}/{recipe.name}", size_px, origin=0.5), **recipe.parameters)
    half = size_px // 2
    return plain, replace(
        moved, color=np.roll(moved.color, (half, half), (0, 1)), height=np.roll(moved.height, (half, half), (0, 1))
    )


def test_painting_over_the_border_continues_the_tile() -> None:
    """Exact periodicity: a tile that starts at (½, ½) is the same tile, moved; only rounding at edges may differ."""
    for name, recipe in RECIPES.items():
        plain, moved = _half_moved(recipe, 64)
        wrong = (np.abs(plain.color - moved.color).max(axis=-1) > 0.03) | (np.abs(plain.height - moved.height) > 0.05)
        assert wrong.mean() < 0.01, (name, wrong.mean())


def test_a_seam_would_be_found() -> None:
    """The test above can fail: half a wave too much across the tile does not continue."""

    def waves(tile: Tile, count: float) -> Surface:
        wave = 0.5 + 0.5 * np.sin(2 * np.pi * count * tile.x)
        return Surface(np.repeat(wave[..., None], 3, axis=2), wave, 0.5)

    for count, share in ((2.0, 0.0), (2.5, 0.4)):
        plain, moved = _half_moved(Recipe("waves", "misc", waves, {"count": count}), 64)
        assert (np.abs(plain.height - moved.height) > 0.05).mean() >= share
        assert count != 2.0 or np.allclose(plain.height, moved.height, atol=1e-4)


@pytest.mark.parametrize("name", ["red_brick_wall", "marble_carrara", "oak_floor", "tartan_highland", "river_pebbles"])
def test_a_smaller_size_is_the_same_material(name: str) -> None:
    large = Image.fromarray(RECIPES[name].maps(512)["basecolor"]).resize((64, 64), Image.Resampling.BOX)
    small = Image.fromarray(RECIPES[name].maps(256)["basecolor"]).resize((64, 64), Image.Resampling.BOX)
    a, b = np.asarray(large).astype(float).ravel(), np.asarray(small).astype(float).ravel()
    assert np.corrcoef(a, b)[0, 1] > 0.9
    assert abs(a.mean() - b.mean()) < 3


def test_painting_twice_gives_the_same_bytes(painted) -> None:
    for name in list(RECIPES)[::6]:
        again = RECIPES[name].maps(SIZE)
        assert all(np.array_equal(again[m], painted[name][m]) for m in MAPS), name


def test_the_shipped_index_fits_the_code(tmp_path: Path) -> None:
    bank = open_bank("procedural", cache_dir=tmp_path, size_px=64)
    assert [r.name for r in bank.records] == sorted(RECIPES)
    assert not list(tmp_path.iterdir())  # records cost no file
    for record in bank.records:
        recipe = RECIPES[record.name]
        assert (record.category, record.identity) == (recipe.category, recipe.identity)
        assert record.license == "CC0-1.0"


def test_the_shipped_statistics_fit_the_pixels(tmp_path: Path) -> None:
    bank = open_bank("procedural", cache_dir=tmp_path, size_px=64)
    for record in bank.records[::6]:
        measured = statistics_of(RECIPES[record.name].maps(192))
        assert np.allclose(record.mean_linear_rgb, measured.mean_linear_rgb, atol=0.03), record.name
        assert abs(record.mean_roughness - measured.mean_roughness) < 0.04, record.name
        assert abs(record.mean_metallic - measured.mean_metallic) < 0.05, record.name
        assert abs(record.std_luminance - measured.std_luminance) < 0.05, record.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wood: [", "class → name → painting function"),
        ("wood: 3", "class → name → painting function"),
        ("wod: {oak: {cork: {}}}", "oak is in the unknown class 'wod'"),
        ("wood: {oak: {cork: {}, felt: {}}}", "oak must name one painting function"),
        ("wood: {oak: {corc: {}}}", "oak: no function 'corc'"),
        ("wood: {oak: {rgb: {color: red}}}", "oak: no function 'rgb'"),
        ("wood: {oak: {cork: {colors: [], grain: 3}}}", "oak: cork does not take these parameters.*grain"),
        ("wood: {oak: {cork: }}", "oak: cork does not take these parameters"),
        ("wood: &a {oak: {felt: {colors: []}}}\nmetal: *a", "a name stands in two classes"),
    ],
)
def test_recipes_that_cannot_be_painted_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipes.yaml").write_text(text)
    with pytest.raises(DatasetError, match=rf"recipes\.yaml.*{message}"):
        read_recipes(tmp_path / "recipes.yaml")


@pytest.mark.parametrize(
    ("name", "word"), [("toy_bricks", "motif"), ("diamond_plate", "motif"), ("stucco_ochre", "style")]
)
def test_an_unknown_motif_is_refused(name: str, word: str) -> None:
    recipe = RECIPES[name]
    with pytest.raises(ValueError, match=f"unknown {word} 'nonsense'"):
        replace(recipe, parameters={**recipe.parameters, word: "nonsense"}).surface(16)


def _hashes(files: dict[str, dict[str, Path]]) -> dict[tuple[str, str], str]:
    return {(n, m): hashlib.sha256(p.read_bytes()).hexdigest() for n, maps in files.items() for m, p in maps.items()}


def test_files_are_made_once_and_remade_when_cut_short(tmp_path: Path) -> None:
    bank = open_bank("procedural", cache_dir=tmp_path, size_px=32)
    files = bank.materialise(["oak_floor", "lawn", "oak_floor"])
    assert list(files) == ["oak_floor", "lawn"]
    before = _hashes(files)
    assert Image.open(files["lawn"]["basecolor"]).size == (32, 32)
    stamp = files["lawn"]["height"].stat().st_mtime_ns
    broken = files["oak_floor"]["normal"]
    broken.write_bytes(broken.read_bytes()[:-20])
    assert _hashes(bank.materialise(["oak_floor", "lawn"])) == before
    assert files["lawn"]["height"].stat().st_mtime_ns == stamp


def test_an_unknown_material_names_the_nearest(tmp_path: Path) -> None:
    bank = open_bank("procedural", cache_dir=tmp_path, size_px=32)
    with pytest.raises(ConfigError, match="oak_floor"):
        bank.materialise(["oak_flor"])
    with pytest.raises(ConfigError, match="16"):
        open_bank("procedural", cache_dir=tmp_path, size_px=4)


def test_two_processes_at_once_write_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from megasynth_attr.textures.bank import open_bank\n"
        "b = open_bank('procedural', cache_dir=Path(sys.argv[1]), size_px=48)\n"
        "b.materialise(['oak_floor', 'lawn', 'red_brick_wall', 'gold_leaf'])\n"
    )
    folders = [tmp_path / "shared", tmp_path / "shared", tmp_path / "alone"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3]), "PYTHONHASHSEED": "7"}
    running = [subprocess.Popen([sys.executable, "-c", code, str(f)], env=environment) for f in folders]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    names = ["oak_floor", "lawn", "red_brick_wall", "gold_leaf"]
    shared = open_bank("procedural", cache_dir=tmp_path / "shared", size_px=48).materialise(names)
    alone = open_bank("procedural", cache_dir=tmp_path / "alone", size_px=48).materialise(names)
    assert _hashes(shared) == _hashes(alone)
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_written_bank_is_a_disk_bank(tmp_path: Path) -> None:
    chosen = [RECIPES[name] for name in ("oak_floor", "lawn")]
    assert write_bank(tmp_path / "bank", 32, chosen) == 2
    bank = open_bank(str(tmp_path / "bank"), cache_dir=tmp_path, size_px=512)
    assert isinstance(bank, DiskBank) and [r.name for r in bank.records] == ["lawn", "oak_floor"]
    made = open_bank("procedural", cache_dir=tmp_path, size_px=32).materialise(["lawn", "oak_floor"])
    assert _hashes(bank.materialise(["lawn", "oak_floor"])) == _hashes(made)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "size_px" in capsys.readouterr().out
    main([f"out={tmp_path / 'b'}", "--size_px=16", "categories=[leather]"])
    assert len(open_bank(str(tmp_path / "b"), cache_dir=tmp_path, size_px=16).records) >= 5
    for wrong, hint in (("sizepx=3", "size_px"), ("size_px=big", "whole number"), ("out", "key=value")):
        with pytest.raises(ConfigError, match=hint):
            main([f"out={tmp_path}", wrong])
    with pytest.raises(ConfigError, match="leather"):
        main([f"out={tmp_path}", "categories=[lether]"])
    with pytest.raises(ConfigError, match="either"):
        main([])
