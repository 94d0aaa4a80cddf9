"""Recipes of the mineral materials: ceramic, concrete, ground, marble, plaster, stone, terracotta."""

from __future__ import annotations

from megasynth_attr.textures.procedural.coatings import cast, peeling, stucco
from megasynth_attr.textures.procedural.earth import blades, cracked, pebbles, ripples, soil
from megasynth_attr.textures.procedural.masonry import blocks, ornament, roof
from megasynth_attr.textures.procedural.oddities import crackle, wallpaper
from megasynth_attr.textures.procedural.recipe import Recipe
from megasynth_attr.textures.procedural.stones import granite, marble, rock, strata, terrazzo
from megasynth_attr.textures.procedural.woods import strands

_CLAY = ("#5e2a1e", "#8c3b26", "#a5492f", "#b75f3e", "#7a3524")

# fmt: off
MINERAL: tuple[Recipe, ...] = (
    # -- ceramic ------------------------------------------------------------------------------------------------------
    Recipe("subway_tiles_white", "ceramic", blocks, dict(
        kind="bricks", arguments={"columns": 3, "rows": 6}, colors=("#e4e3dc", "#efeee9", "#e9e8e1"),
        joint_color="#8b8a86", joint=0.004, bevel=0.014, variation=0.02, mottle=0.006, mottle_period=4, bumps=0.03,
        bump_period=6, tilt=0.12, roughness=0.1, roughness_spread=0.01, relief=0.008
    )),
    Recipe("bath_mosaic_aqua", "ceramic", blocks, dict(
        kind="bricks", arguments={"columns": 12, "rows": 12, "bond": 0.0}, discrete=True, colors=("#2f7f8f", "#57a5a8",
        "#8cc7c0", "#1d5f78", "#c9e3d8", "#3d95a5"), joint_color="#c9c7bd", joint=0.004, bevel=0.012, variation=0.06,
        mottle=0.02, bumps=0.05, tilt=0.3, roughness=0.12, relief=0.008
    )),
    Recipe("hexagon_tiles_sage", "ceramic", blocks, dict(
        kind="hexagons", arguments={"cells": (7, 8)}, discrete=True, colors=("#7d9482", "#8fa592", "#71897a", "#dcd8c8",
        "#7d9482"), joint_color="#d6d2c6", joint=0.004, bevel=0.01, variation=0.05, mottle=0.02, bumps=0.04, tilt=0.08,
        roughness=0.3, relief=0.007
    )),
    Recipe("zellige_emerald", "ceramic", blocks, dict(
        kind="bricks", arguments={"columns": 6, "rows": 6, "bond": 0.0}, wobble=0.003, wobble_period=10,
        colors=("#0b3d33", "#14604d", "#1f7a5f", "#2c9173", "#0e4a44"), joint_color="#3b3a33", joint=0.0015,
        bevel=0.012, chipped=0.0025, variation=0.14, mottle=0.09, mottle_period=8, bumps=0.14, bump_period=8, tilt=0.7,
        roughness=0.09, roughness_spread=0.03, relief=0.012
    )),
    Recipe("azulejo_blue", "ceramic", ornament, dict(
        repeats=3, colors=("#e9e6dc", "#2b5fa8", "#173a73", "#d9a437"), joint_color="#a9a59a"
    )),
    Recipe("fish_scale_tiles_turquoise", "ceramic", roof, dict(
        columns=6, rows=8, depth=1.0, shape=2.0, colors=("#1d6c7a", "#2b8f96", "#4fb0ab", "#185a70"), gloss=0.14,
        mottle=0.05, relief=0.02
    )),
    Recipe("checker_floor_classic", "ceramic", blocks, dict(
        kind="checker", arguments={"count": 6}, discrete=True, colors=("#2b2c33", "#dcd7c9"), joint_color="#74706a",
        joint=0.002, bevel=0.006, variation=0.04, mottle=0.04, mottle_period=6, bumps=0.03, roughness=0.22,
        relief=0.005, dirt=("#8a7f6c", 0.12)
    )),
    Recipe("crackle_glaze_celadon", "ceramic", crackle, dict(
        glaze=("#7fa08a", "#a3bfa5", "#c2d4b9"), line="#4c4a36", cells=5
    )),
    Recipe("penny_tiles_coral", "ceramic", blocks, dict(
        kind="hexagons", arguments={"cells": (12, 14)}, discrete=True, colors=("#d9705c", "#e08a72", "#cf5f4f",
        "#eadfd2", "#d9705c", "#d67c66"), joint_color="#c9c2b6", joint=0.006, bevel=0.012, variation=0.05, mottle=0.01,
        bumps=0.02, dome=0.12, roughness=0.14, relief=0.01
    )),
    # -- concrete -----------------------------------------------------------------------------------------------------
    Recipe("concrete_formwork_panels", "concrete", cast, dict(
        colors=("#7b7a75", "#94938d", "#a5a39c", "#b1afa8"), panels=(1, 2, True), pores=(40, 0.2, 0.28),
        stains=("#6f6c64", 0.35), lumps=0.06
    )),
    Recipe("concrete_board_marked", "concrete", cast, dict(
        colors=("#6d6b66", "#8c8983", "#a19d95"), planks=8, pores=(36, 0.12, 0.3), lumps=0.05, relief=0.02
    )),
    Recipe("concrete_cracked", "concrete", cast, dict(
        colors=("#7e7870", "#99928a", "#aea79d", "#b9b3aa"), cracks=0.8, pores=(28, 0.3, 0.35), lumps=0.25,
        stains=("#7a5d42", 0.25), relief=0.02
    )),
    Recipe("screed_dark_polished", "concrete", cast, dict(
        colors=("#35373a", "#474a4d", "#595b5d", "#6a6b6b"), lumps=0.05, roughness=0.32, relief=0.006
    )),
    Recipe("exposed_aggregate", "concrete", pebbles, dict(
        sizes=(34, 22), colors=("#5d564f", "#8f8578", "#b7aa97", "#7c6a5a", "#d0c5b3"), ground="#8d8981", share=0.75,
        roundness=0.7, relief=0.02, smoothness=0.55
    )),
    Recipe("interlocking_pavers", "concrete", blocks, dict(
        kind="herringbone", arguments={"repeats": 3, "length": 2}, colors=("#7d6f68", "#95877c", "#a8988b", "#6a625e"),
        joint_color="#5a5249", joint=0.003, bevel=0.01, variation=0.1, mottle=0.09, mottle_period=40, fleck=("#4d4744",
        0.22), bumps=0.12, bump_period=40, roughness=0.86, dirt=("#4f4a3c", 0.3), relief=0.016
    )),
    Recipe("asphalt", "concrete", pebbles, dict(
        sizes=(64, 44), colors=("#47474a", "#57575a", "#686765", "#7d7a75", "#4f4f52"), ground="#3a3a3d", share=0.6,
        roundness=0.8, roughness=0.85, relief=0.014, smoothness=0.5
    )),
    # -- ground -------------------------------------------------------------------------------------------------------
    Recipe("cracked_mud", "ground", cracked, dict(
        plates=5, colors=("#8d7455", "#a58a67", "#b99f7b", "#9a7d5a"), crack_color="#3a2c1f"
    )),
    Recipe("salt_flat", "ground", cracked, dict(
        plates=4, colors=("#c9c2b6", "#dcd7cd", "#e6e2da"), crack_color="#a08d7a", width=0.03, curl=1.3
    )),
    Recipe("gravel_grey", "ground", pebbles, dict(
        sizes=(26, 18, 13), colors=("#55534f", "#7b7872", "#9a958c", "#68625c", "#b4aea3"), ground="#3d3a35", share=0.6,
        roundness=0.75, smoothness=0.55
    )),
    Recipe("river_pebbles", "ground", pebbles, dict(
        sizes=(24, 14, 9), colors=("#4f5a60", "#83837d", "#a89a86", "#6e5648", "#c3b9a7", "#3f464a", "#8d6f58"),
        ground="#35302a", share=0.8, roundness=0.5, roughness=0.55, wet=0.5, smoothness=0.85, relief=0.06
    )),
    Recipe("desert_sand_ripples", "ground", ripples, dict(
        waves=9, colors=("#a67f52", "#c49a68", "#d8b583", "#e2c497")
    )),
    Recipe("lawn", "ground", blades, dict(
        layers=8, density=55, colors=("#22380f", "#3b5a1a", "#5a7d28", "#82a043", "#a3b35c"), ground="#241c10"
    )),
    Recipe("mossy_soil", "ground", soil, dict(
        colors=("#241a12", "#3b2b1d", "#54402c"), growth=(("#1f3010", "#3f5a1c", "#6d8730"), 0.55), stones=(("#57534d",
        "#7b756b", "#8f877b"), 7, 0.3)
    )),
    Recipe("red_desert_soil", "ground", soil, dict(
        colors=("#6b2f1b", "#8f4526", "#ab5c35", "#bf7448"), clods=30, stones=(("#5f3423", "#8a5a41", "#a9785a"), 9,
        0.45), relief=0.03
    )),
    Recipe("patchy_snow", "ground", soil, dict(
        colors=("#2b241c", "#453a2d", "#5c4f3d"), growth=(("#b9c3cf", "#d9dfe6", "#e9ecef"), 0.72), growth_height=0.7,
        stones=(("#4e4a46", "#6b6660"), 8, 0.3)
    )),
    Recipe("autumn_leaves", "ground", strands, dict(
        layers=9, colors=("#6b3516", "#96501d", "#b5702a", "#cf9f42", "#8a331b", "#75602e"), pieces=7, slim=0.52,
        background="#2a1d12", shape="leaf", roughness=0.72, relief=0.02
    )),
    # -- marble -------------------------------------------------------------------------------------------------------
    Recipe("marble_carrara", "marble", marble, dict(
        ground=("#b9bcc0", "#d6d7d8", "#e3e3e2", "#e6e6e5"), veins=(("#6f757d", 2, 0.07, 0.035, 0.6), ("#8c9198", 3,
        0.06, 0.014, 0.5), ("#9da1a6", 6, 0.05, 0.006, 0.35))
    )),
    Recipe("marble_nero_marquina", "marble", marble, dict(
        ground=("#27272b", "#313136", "#3b3b40"), cloud=0.18, veins=(("#e6e3dd", 2, 0.08, 0.02, 0.95), ("#c9c5be", 3,
        0.07, 0.008, 0.8), ("#9a9693", 6, 0.05, 0.005, 0.5))
    )),
    Recipe("marble_verde", "marble", marble, dict(
        ground=("#14291f", "#1f4131", "#2f5a45", "#4f7a62"), cloud=0.26, cloud_warp=0.16, veins=(("#16291f", 3, 0.08,
        0.03, 0.6), ("#a9c4ae", 3, 0.1, 0.014, 0.75), ("#d0dccb", 6, 0.08, 0.005, 0.6))
    )),
    Recipe("marble_rosso", "marble", marble, dict(
        ground=("#5b2019", "#7f3426", "#994936", "#b2705a"), cloud=0.24, cloud_warp=0.12, veins=(("#3c120e", 3, 0.08,
        0.012, 0.6), ("#e0cdbd", 2, 0.09, 0.025, 0.85), ("#e9dccf", 5, 0.07, 0.006, 0.6))
    )),
    Recipe("marble_calacatta_gold", "marble", marble, dict(
        ground=("#cfcabf", "#e4e0d7", "#ebe8e1", "#ece9e3"), veins=(("#b08d52", 2, 0.07, 0.05, 0.75), ("#7b776f", 2,
        0.08, 0.022, 0.65), ("#b79b6a", 4, 0.06, 0.008, 0.5))
    )),
    Recipe("onyx_honey_banded", "marble", marble, dict(
        ground=("#7a3e12", "#b5702a", "#d9a355", "#eed7a5", "#c98a3d"), bands=4, cloud_warp=0.03, roughness=0.08,
        veins=(("#f3e7c9", 3, 0.06, 0.012, 0.6),)
    )),
    Recipe("marble_checker_hall", "marble", marble, dict(
        ground=("#c4bdb0", "#dcd6ca", "#e6e2d8"), checker=("#2d2624", "#40322e", "#543f38"), slabs=4, veins=(("#8f8474",
        3, 0.07, 0.02, 0.6), ("#a99f90", 6, 0.06, 0.006, 0.5))
    )),
    # -- plaster ------------------------------------------------------------------------------------------------------
    Recipe("stucco_ochre", "plaster", stucco, dict(
        style="sprayed", scale=26, colors=("#b07c3f", "#c9974f", "#d6aa66"), dirt=("#6f5433", 0.3), relief=0.02
    )),
    Recipe("venetian_plaster_blue", "plaster", stucco, dict(
        style="trowelled", scale=5, colors=("#2f4d68", "#42688a", "#5b83a3", "#7ba0b8"), roughness=0.5, relief=0.01
    )),
    Recipe("combed_plaster_white", "plaster", stucco, dict(
        style="combed", scale=22, colors=("#c3bdb2", "#dad5cb", "#e4e0d8"), relief=0.012
    )),
    Recipe("popcorn_ceiling", "plaster", stucco, dict(
        style="popcorn", scale=30, colors=("#b9b5ac", "#d2cfc7", "#e0ded8"), relief=0.022
    )),
    Recipe("swirl_plaster_sage", "plaster", stucco, dict(
        style="swirls", scale=4, colors=("#8e9a83", "#a7b29b", "#bac3ae"), relief=0.007
    )),
    Recipe("peeling_paint_brick", "plaster", peeling, dict(
        coats=("#cfc8b4", "#6f9a94"), under=("#6d3022", "#8f4530", "#a65b3e"), left=0.72, bricks_below=(4, 10)
    )),
    Recipe("damask_wallpaper", "plaster", wallpaper, dict(
        ground="#6b2434", print_color="#b78a4e", repeats=4, metallic=0.35
    )),
    # -- stone --------------------------------------------------------------------------------------------------------
    Recipe("granite_grey", "stone", granite, dict(
        minerals=(("#c9c6c0", 0.4), ("#9a9792", 0.3), ("#d9d5cd", 0.12), ("#33332f", 0.18)), grain=22, roughness=0.22
    )),
    Recipe("granite_red_polished", "stone", granite, dict(
        minerals=(("#a45b4a", 0.42), ("#8a4437", 0.2), ("#c99d8b", 0.14), ("#2c2725", 0.16), ("#8f8780", 0.08)),
        grain=14, roughness=0.15, sparkle=0.06
    )),
    Recipe("cobblestone_street", "stone", blocks, dict(
        kind="polygons", arguments={"cells": (8, 9), "jitter": 0.42, "stagger": True}, colors=("#4d4b4a", "#6b6763",
        "#85807a", "#5b534d", "#77706d"), joint_color="#2f2a24", joint=0.008, bevel=0.03, wobble=0.004, variation=0.14,
        mottle=0.12, mottle_period=24, bumps=0.12, dome=1.1, tilt=0.4, roughness=0.72, dirt=("#3c3a2c", 0.25),
        relief=0.028
    )),
    Recipe("flagstone_terrace", "stone", blocks, dict(
        kind="polygons", arguments={"cells": 4, "jitter": 0.95}, wobble=0.012, wobble_period=6, colors=("#6e6a5e",
        "#8d8270", "#a08f74", "#777b78", "#8f7a66"), joint_color="#6b6452", joint=0.01, bevel=0.012, chipped=0.006,
        variation=0.1, mottle=0.1, mottle_period=8, bumps=0.35, bump_period=6, roughness=0.82, relief=0.018
    )),
    Recipe("ashlar_limestone", "stone", blocks, dict(
        kind="bricks", arguments={"columns": 2, "rows": 4}, wobble=0.002, colors=("#b0a184", "#c4b698", "#d1c5aa",
        "#bcae93"), joint_color="#8d8067", joint=0.004, bevel=0.012, chipped=0.006, variation=0.08, mottle=0.07,
        mottle_period=5, bumps=0.25, bump_period=10, roughness=0.88, dirt=("#6d6350", 0.45), relief=0.018
    )),
    Recipe("slate_cleft", "stone", strata, dict(
        layers=7, colors=("#2c3338", "#3c464c", "#4d575c", "#39403f"), wave=1.3, steps=1.0, grit=0.1, roughness=0.62,
        relief=0.035
    )),
    Recipe("sandstone_strata", "stone", strata, dict(
        layers=12, colors=("#8f4f2c", "#b3713f", "#cf9a62", "#dbb58a", "#a55f3c"), wave=0.9, steps=0.5, grit=0.2,
        relief=0.03
    )),
    Recipe("travertine", "stone", strata, dict(
        layers=10, colors=("#b29a78", "#c9b594", "#d8c8ac", "#bfa784"), wave=0.7, steps=0.05, grit=0.06, pits=0.1,
        roughness=0.42, relief=0.008
    )),
    Recipe("terrazzo_cream", "stone", terrazzo, dict(
        ground="#d9d2c4", chips=("#a3502f", "#3f4a4a", "#c59a5b", "#77837c", "#8b3f36", "#e9e4da", "#54402f"), sizes=(9,
        17, 34), share=0.6
    )),
    Recipe("terrazzo_night", "stone", terrazzo, dict(
        ground="#26292e", chips=("#e3ded3", "#b9b2a5", "#6f8a95", "#c7a46a", "#8d9095"), sizes=(14, 26, 44), share=0.5,
        roughness=0.15
    )),
    Recipe("cliff_rock_lichen", "stone", rock, dict(
        colors=("#3f3a35", "#5f5850", "#7d7468", "#958b7d"), facets=4, lichen=("#9a9a55", 0.75), relief=0.09
    )),
    Recipe("lava_crust", "stone", rock, dict(
        colors=("#2a2727", "#38332f", "#463f3c", "#534a46"), facets=4, cracks=0.9, glow="#d2541a", roughness=0.85,
        relief=0.07
    )),
    # -- terracotta ---------------------------------------------------------------------------------------------------
    Recipe("red_brick_wall", "terracotta", blocks, dict(
        kind="bricks", arguments={"columns": 4, "rows": 12}, wobble=0.0015, wobble_period=24, colors=_CLAY,
        joint_color="#b3a898", joint=0.0055, bevel=0.006, chipped=0.003, variation=0.14, mottle=0.09, mottle_period=24,
        fleck=("#3a1a14", 0.2), bumps=0.2, bump_period=32, tilt=0.15, roughness=0.86, relief=0.014
    )),
    Recipe("whitewashed_brick", "terracotta", blocks, dict(
        kind="bricks", arguments={"columns": 3, "rows": 8}, wobble=0.003, wobble_period=16, colors=("#9a5a44",
        "#c9b3a2", "#dcd2c6", "#d4c6b8", "#b98d78"), joint_color="#cfc6ba", joint=0.007, bevel=0.01, chipped=0.006,
        variation=0.07, mottle=0.16, mottle_period=10, bumps=0.3, bump_period=20, roughness=0.9, dirt=("#e0d8cd", 0.65),
        relief=0.014
    )),
    Recipe("herringbone_brick_path", "terracotta", blocks, dict(
        kind="herringbone", arguments={"repeats": 2, "length": 2}, wobble=0.0, colors=("#7c3b2a", "#98503a", "#ad6a4e"),
        joint_color="#6f6350", joint=0.005, bevel=0.01, chipped=0.004, variation=0.16, mottle=0.12, mottle_period=20,
        fleck=("#40241b", 0.18), bumps=0.22, roughness=0.88, dirt=("#4b4b2e", 0.35), relief=0.016
    )),
    Recipe("roof_tiles_terracotta", "terracotta", roof, dict(
        columns=6, rows=6, depth=0.55, shape=2.4, colors=("#7d3a24", "#a2522f", "#bb6b40", "#8f4a30"), curve=0.45,
        gloss=0.82, moss=("#5d6335", 0.7), relief=0.045
    )),
    Recipe("saltillo_hexagons", "terracotta", blocks, dict(
        kind="hexagons", arguments={"cells": (5, 6)}, wobble=0.002, colors=("#a4552f", "#b96a3d", "#c98552", "#b0603a"),
        joint_color="#b9a88f", joint=0.009, bevel=0.014, chipped=0.003, variation=0.08, mottle=0.09, mottle_period=5,
        bumps=0.1, bump_period=5, dome=0.3, roughness=0.5, dirt=("#8a5a3c", 0.3), relief=0.014
    )),
    Recipe("basket_weave_brick", "terracotta", blocks, dict(
        kind="basket", arguments={"squares": 4, "slats": 3}, colors=("#8b5a41", "#a6714f", "#c08e68", "#7a4b38"),
        joint_color="#d0c3ad", joint=0.004, bevel=0.008, chipped=0.003, variation=0.12, mottle=0.1, mottle_period=24,
        bumps=0.18, roughness=0.88, relief=0.014
    )),
)
