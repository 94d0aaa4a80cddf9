"""Recipes of the crafted materials: fabric, leather, metal, misc, plastic, wood."""

from __future__ import annotations

from megasynth_attr.textures.procedural.coatings import confetti, moulded, swirl
from megasynth_attr.textures.procedural.fabrics import braid, corduroy, felt, hide, knitted, pile, woven
from megasynth_attr.textures.procedural.masonry import roof
from megasynth_attr.textures.procedural.metals import brushed, corroded, damascus, foil, hammered, plate, spangle
from megasynth_attr.textures.procedural.oddities import chalkboard, circuit, cork, honeycomb, porous
from megasynth_attr.textures.procedural.recipe import Recipe
from megasynth_attr.textures.procedural.woods import bamboo, bark, boards, end_grain, strands

_OAK = ("#c9a26d", "#b48a55", "#9a7040", "#7d5830")
_WALNUT = ("#99724f", "#82603f", "#6b4a30", "#533722")

# fmt: off
CRAFTED: tuple[Recipe, ...] = (
    # -- fabric -------------------------------------------------------------------------------------------------------
    Recipe("denim_indigo", "fabric", woven, dict(
        pattern="denim", threads=(72, 72), warp_colors=("#27406b", "#2d4876", "#233a62"), weft_colors=("#aeb6c2",),
        slub=0.35, wear=("#93a7c6", 0.45)
    )),
    Recipe("linen_natural", "fabric", woven, dict(
        pattern="plain", threads=(56, 56), warp_colors=("#b7a789", "#c2b395"), weft_colors=("#bfb092", "#ad9d7e"),
        slub=0.5, hole="#7d6f57"
    )),
    Recipe("tartan_highland", "fabric", woven, dict(
        pattern="twill", threads=(96, 96), warp_colors=("#93282a",) * 14 + ("#1d4530",) * 10 + ("#24335a",) * 10 +
        ("#c9a53a",) * 2 + ("#24335a",) * 10 + ("#1d4530",) * 2, weft_colors=("#93282a",) * 14 + ("#1d4530",) * 10 +
        ("#24335a",) * 10 + ("#c9a53a",) * 2 + ("#24335a",) * 10 + ("#1d4530",) * 2
    )),
    Recipe("houndstooth", "fabric", woven, dict(
        pattern="twill", threads=(64, 64), warp_colors=("#1f1d1c",) * 4 + ("#ddd6c8",) * 4, weft_colors=("#1f1d1c",) * 4
        + ("#ddd6c8",) * 4
    )),
    Recipe("herringbone_tweed", "fabric", woven, dict(
        pattern="chevron", threads=(64, 64), warp_colors=("#6b5a46", "#7a6851", "#5c4d3c"), weft_colors=("#b3a184",
        "#a8967a", "#bda98a"), slub=0.45, fuzz=0.12
    )),
    Recipe("burlap", "fabric", woven, dict(
        pattern="plain", threads=(30, 30), warp_colors=("#9a7d52", "#a98b5e"), weft_colors=("#a5875a", "#8f734a"),
        slub=0.6, twist=0.3, wobble=0.003, hole="#3a2d1c", fuzz=0.12
    )),
    Recipe("silk_brocade_red", "fabric", woven, dict(
        pattern="satin", threads=(100, 100), warp_colors=("#8f1626", "#9c1c2d"), weft_colors=("#d0a04a",), slub=0.1,
        twist=0.03, fuzz=0.03, roughness=0.42
    )),
    Recipe("knit_nordic", "fabric", knitted, dict(
        columns=24, rows=32, colors=("#25365a", "#e2dccf", "#a32c2e"), chart=("00000000", "01010101", "00000000",
        "00010000", "00111000", "01111100", "11121111", "01111100", "00111000", "00010000", "00000000", "10101010",
        "00000000", "22002200", "00220022", "00000000")
    )),
    Recipe("knit_rib_mustard", "fabric", knitted, dict(columns=24, rows=28, colors=("#c08a25",), rib=2)),
    Recipe("carpet_loop_teal", "fabric", pile, dict(
        tufts=44, colors=("#1f4a50", "#2b6167", "#3b7a7d", "#2f5a66"), relief=0.02
    )),
    Recipe("carpet_rings", "fabric", pile, dict(
        tufts=56, colors=("#d6c7a8", "#a63d2f", "#1f3550", "#c98b3a", "#8f2f2a"), pattern="rings", length=0.8,
        relief=0.015
    )),
    Recipe("corduroy_rust", "fabric", corduroy, dict(wales=26, colors=("#5a2412", "#8a3d1f", "#b0592f"), relief=0.012)),
    Recipe("felt_charcoal", "fabric", felt, dict(colors=("#2e2f31", "#45464a", "#606165", "#87888b"), fibres=0.22)),
    # -- leather ------------------------------------------------------------------------------------------------------
    Recipe("leather_saddle", "leather", hide, dict(
        cells=34, colors=("#54290f", "#7c431c", "#9d5f2e", "#b57a45"), crease=0.4, wrinkles=0.5, wear=0.35
    )),
    Recipe("leather_black_pebbled", "leather", hide, dict(
        cells=26, colors=("#3a3837", "#474443", "#565150"), crease=0.9, wrinkles=0.05, roughness=0.38, wear=0.1,
        relief=0.012
    )),
    Recipe("leather_quilted_cream", "leather", hide, dict(
        cells=40, colors=("#b8a588", "#cfbea1", "#dccdb2"), crease=0.4, wrinkles=0.1, quilt=(4, "#8a6d49"),
        roughness=0.42, wear=0.1, relief=0.03
    )),
    Recipe("leather_crocodile", "leather", hide, dict(
        cells=7, colors=("#263f2b", "#38593b", "#52754c"), crease=1.0, wrinkles=0.0, plates=True, roughness=0.22,
        wear=0.35, relief=0.02
    )),
    Recipe("leather_woven_tan", "leather", braid, dict(strips=10, colors=("#6b3d1c", "#8f562a", "#a66d3b"))),
    Recipe("suede_burgundy", "leather", pile, dict(
        tufts=88, colors=("#6a2029", "#7d2b36", "#8f3a44"), length=0.25, sheen=0.03, relief=0.003, roughness=0.95
    )),
    # -- metal --------------------------------------------------------------------------------------------------------
    Recipe("brushed_steel", "metal", brushed, dict(color="#b4b6b9", roughness=0.3)),
    Recipe("brushed_brass", "metal", brushed, dict(color="#c9a55a", roughness=0.34, strength=0.8, stain=0.5)),
    Recipe("hammered_copper", "metal", hammered, dict(
        color="#c9845f", dents=11, roughness=0.22, patina=("#3f2a22", 0.45)
    )),
    Recipe("rusted_iron", "metal", corroded, dict(
        base="#5d5a58", base_metallic=0.9, base_roughness=0.5, rust=("#3b1d10", "#6e3215", "#9a4d1f", "#b8722f"),
        amount=0.7
    )),
    Recipe("chipped_paint_green", "metal", corroded, dict(
        base="#47705a", base_metallic=0.0, base_roughness=0.38, rust=("#3a2016", "#5f3019", "#7f4824"), amount=0.24,
        flake=0.9, streaks=0.3
    )),
    Recipe("verdigris_bronze", "metal", corroded, dict(
        base="#7d5a34", base_metallic=0.95, base_roughness=0.4, rust=("#27564d", "#458a7b", "#74b3a0", "#9accba"),
        amount=0.55, streaks=0.8
    )),
    Recipe("diamond_plate", "metal", plate, dict(
        motif="diamond", repeats=8, color="#9da0a3", roughness=0.38, wear=0.5, relief=0.012
    )),
    Recipe("perforated_steel", "metal", plate, dict(
        motif="holes", repeats=14, color="#a9acb0", roughness=0.33, relief=0.01
    )),
    Recipe("riveted_hull", "metal", plate, dict(
        motif="rivets", repeats=2, color="#6d7478", roughness=0.45, wear=0.6, relief=0.012
    )),
    Recipe("corrugated_zinc", "metal", plate, dict(
        motif="waves", repeats=10, color="#a3a7aa", roughness=0.42, wear=0.2, relief=0.03
    )),
    Recipe("engine_turned_steel", "metal", plate, dict(
        motif="spun", repeats=6, color="#b6b7ba", roughness=0.24, wear=0.1, relief=0.0015
    )),
    Recipe("galvanised_spangle", "metal", spangle, dict(color="#a8adb2", crystals=14, roughness=0.38)),
    Recipe("gold_leaf", "metal", foil, dict(color="#dcae52", folds=4, roughness=0.2, relief=0.04)),
    Recipe("damascus_steel", "metal", damascus, dict(
        colors=("#4a4b4f", "#8e9196", "#c3c5c8"), layers=8, roughness=0.28
    )),
    # -- misc ---------------------------------------------------------------------------------------------------------
    Recipe("circuit_board", "misc", circuit, dict(board="#12452c", trace="#1f6a3f", pad="#c9a24f", cells=20)),
    Recipe("cork_board", "misc", cork, dict(colors=("#7a5230", "#a9784a", "#c4955f", "#d2aa78"), grains=22)),
    Recipe("honeycomb", "misc", honeycomb, dict(
        columns=8, rows=10, wax=("#a86a1f", "#cf9437", "#e2b45a"), fill=("#8a4a0c", "#b8690f", "#d68f1f"), filled=0.45
    )),
    Recipe("wicker", "misc", braid, dict(
        strips=16, colors=("#8a6238", "#b0854f", "#cba36b"), pattern="basket", roughness=0.6
    )),
    Recipe("crumpled_paper", "misc", foil, dict(color="#d9d3c6", folds=3, roughness=0.85, metallic=0.0, relief=0.06)),
    Recipe("chalkboard", "misc", chalkboard, dict(board="#27332e", chalk="#d8dcd6")),
    Recipe("dragon_scales", "misc", roof, dict(
        columns=8, rows=12, depth=1.1, shape=1.35, colors=("#55204a", "#732a50", "#9a4355", "#43285f"), gloss=0.25,
        curve=0.5, mottle=0.1, relief=0.03, metal=0.35
    )),
    Recipe("coral_reef", "misc", porous, dict(
        colors=("#c9563f", "#de7a58", "#eba57f"), scales=(9, 18, 34), inside="#5a1d1c", roughness=0.8
    )),
    Recipe("straw_thatch", "misc", strands, dict(
        layers=9, colors=("#8f6f35", "#b8964f", "#d3b56f", "#a58443"), pieces=(3, 21), slim=0.085, background="#4a3818",
        spread=0.1, roughness=0.8, relief=0.016
    )),
    # -- plastic ------------------------------------------------------------------------------------------------------
    Recipe("plastic_checker_picnic", "plastic", moulded, dict(
        colors=("#c4332f", "#e6e1d8"), motif="checker", repeats=8, roughness=0.35, grain=0.05, height_of=0.1
    )),
    Recipe("plastic_stripes_hazard", "plastic", moulded, dict(
        colors=("#e0b01c", "#232323"), motif="stripes", repeats=4, roughness=0.42, scratches=0.8, height_of=0.1
    )),
    Recipe("plastic_polka", "plastic", moulded, dict(
        colors=("#e7e3da", "#d94f6b", "#3f8fb5", "#e3b23a", "#53a36b"), motif="dots", repeats=6, roughness=0.25,
        height_of=0.3, relief=0.006
    )),
    Recipe("toy_bricks", "plastic", moulded, dict(
        colors=("#c02a26", "#e2b81f", "#2360a8", "#2f8a45", "#d9d9d6"), motif="studs", repeats=8, roughness=0.18,
        scratches=0.1, relief=0.022
    )),
    Recipe("rubber_grip", "plastic", moulded, dict(
        colors=("#414347",), motif="grip", repeats=14, roughness=0.7, grain=0.08, scratches=0.1, relief=0.018
    )),
    Recipe("bubble_silicone", "plastic", moulded, dict(
        colors=("#7a4fa3", "#9566b8", "#5f8fc4", "#79b0c9"), motif="bubbles", repeats=8, roughness=0.3, relief=0.045
    )),
    Recipe("retro_waves", "plastic", moulded, dict(
        colors=("#d9622b", "#e8a33d", "#efe0bd", "#5a8f8a", "#8a3b2a", "#e8a33d"), motif="waves", repeats=6,
        roughness=0.22, height_of=0.12
    )),
    Recipe("carbon_fibre", "plastic", woven, dict(
        pattern="twill", threads=(28, 28), warp_colors=("#3d3e42",), weft_colors=("#4d4f54",), slub=0.05, twist=0.0,
        wobble=0.0, fuzz=0.02, roughness=0.22, metallic=0.25, relief=0.006
    )),
    Recipe("poured_resin_ocean", "plastic", swirl, dict(
        colors=("#0c2f4d", "#125f86", "#2fa3ad", "#d7ebe3", "#0f4a6b"), warp=0.1, bands=3, roughness=0.08
    )),
    Recipe("rubber_granulate", "plastic", confetti, dict(
        ground="#39393b", colors=("#434347", "#3a3a3e", "#4d4d52", "#2f6fb0", "#404044", "#c4473a"), pieces=40,
        layers=3, metallic=0.0, roughness=0.85
    )),
    Recipe("glitter_rose", "plastic", confetti, dict(
        ground="#7a3050", colors=("#d98aa8", "#e9b7c4", "#c46a92", "#f0d3d0"), pieces=64, layers=3, metallic=0.9,
        roughness=0.25
    )),
    # -- wood ---------------------------------------------------------------------------------------------------------
    Recipe("oak_floor", "wood", boards, dict(
        kind="planks", arguments={"rows": 6, "per_row": 2}, colors=_OAK, variation=0.18, roughness=0.4
    )),
    Recipe("walnut_herringbone", "wood", boards, dict(
        kind="herringbone", arguments={"repeats": 2, "length": 4}, colors=_WALNUT, rings=9, waviness=1.2, contrast=0.5,
        variation=0.18, roughness=0.32, gap=0.0006, bevel=0.0015, fibre_strength=0.05, relief=0.004
    )),
    Recipe("pine_knotty", "wood", boards, dict(
        kind="planks", arguments={"rows": 4, "per_row": 1}, colors=("#e2c08a", "#d3a768", "#b98545", "#7d4a20"),
        rings=10, waviness=1.2, knots=7, contrast=0.6, variation=0.07, roughness=0.5
    )),
    Recipe("basket_parquet_maple", "wood", boards, dict(
        kind="basket", arguments={"squares": 6, "slats": 5}, colors=("#e0c294", "#d0ab76", "#b98f5c", "#a0764a"),
        rings=10, variation=0.2, roughness=0.3, gap=0.0008, bevel=0.002
    )),
    Recipe("shabby_boards_blue", "wood", boards, dict(
        kind="planks", arguments={"rows": 5, "per_row": 1}, colors=("#a58d6f", "#8a7257", "#6b573f", "#4d3d2b"),
        rings=9, paint=(("#7fa3ad", "#8fb0b6", "#7297a5"), 0.58), roughness=0.6, gap=0.003, relief=0.01,
        fibre_strength=0.1
    )),
    Recipe("deck_grooved_grey", "wood", boards, dict(
        kind="planks", arguments={"rows": 4, "per_row": 1}, colors=("#9d968c", "#857d72", "#6b6359", "#524a42"),
        rings=8, grooves=5, groove=0.9, gap=0.006, weather=("#8f8d88", 0.5), roughness=0.8, relief=0.012,
        fibre_strength=0.12
    )),
    Recipe("charred_cedar", "wood", boards, dict(
        kind="planks", arguments={"rows": 5, "per_row": 1}, colors=("#58514d", "#463f3c", "#352f2d", "#2a2524"),
        rings=18, waviness=1.0, contrast=0.9, fibre_strength=0.2, roughness=0.55, relief=0.03, gap=0.004,
        gap_color="#171414"
    )),
    Recipe("end_grain_blocks", "wood", end_grain, dict(
        repeats=6, colors=("#dcb983", "#c3955a", "#a06f3b", "#744b25"), rings=11
    )),
    Recipe("bark_oak", "wood", bark, dict(
        colors=("#2b221a", "#4a3d2f", "#6e5f4c", "#8c7d68"), plates=(9, 4), moss=("#56662c", 0.8)
    )),
    Recipe("bamboo_canes", "wood", bamboo, dict(canes=9, colors=("#8f8a3c", "#b5a352", "#cdb968", "#c2a24f"))),
    Recipe("strand_board", "wood", strands, dict(
        layers=11, colors=("#a87c45", "#c79c60", "#dcb87d", "#b58a52", "#9f7340"), pieces=5, slim=0.2,
        background="#8a6234", roughness=0.62, relief=0.008
    )),
)
