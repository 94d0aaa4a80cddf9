"""Everything the tests of this folder have Blender do, as one list, so that each Blender starts only a few times."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from analytic_scenes import (
    AMBIENT,
    LANDSCAPE,
    NO_LIGHT,
    PORTRAIT,
    camera,
    geometry,
    look_at,
    picture_ref,
    scene,
    solid,
    sun,
    texture,
    write_assets,
)  # fmt: skip
from blender_runtime import job
from PIL import Image
from scan_jobs import scan_jobs

from megasynth_attr.core.exr import encode_exr
from megasynth_attr.scene.factors.haze import Haze
from megasynth_attr.scene.spec import (
    AreaLight,
    Assets,
    Bulb,
    Hdri,
    Lighting,
    PictureRef,
    Scene,
    SlotMaterial,
    Texture,
    Window,
)

ALL_LAYERS = "normal instance position"


@dataclass(frozen=True)
class Files:
    """What the jobs refer to on disk."""

    folder: Path
    assets: Assets
    picture: Path
    unusual: Path  # the same picture as CMYK, turned by its EXIF orientation
    fine: Path  # the same picture, enlarged eight times and noisy
    white: Path
    hdri: Path


def write_files(folder: Path) -> Files:
    """Write all assets into ``folder`` and return them."""
    folder.mkdir(parents=True)
    picture, white = folder / "letters.png", folder / "white.png"
    Image.fromarray(letters()).save(picture)
    unusual, lies_on_its_side = folder / "unusual.jpg", Image.Exif()
    lies_on_its_side[0x0112] = 6
    on_its_side = Image.fromarray(np.rot90(letters())).convert("CMYK")
    on_its_side.save(unusual, exif=lies_on_its_side, quality=100, subsampling=0)
    fine, noise = folder / "fine.png", np.random.default_rng(0).integers(-40, 41, (512, 384, 3))
    Image.fromarray((np.kron(letters(), np.ones((8, 8, 1))) + noise).clip(0, 255).astype(np.uint8)).save(fine)
    Image.fromarray(np.full((4, 4, 3), 255, np.uint8)).save(white)
    hdri = folder / "sky.exr"
    hdri.write_bytes(encode_exr({c: sky()[..., i] for i, c in enumerate("RGB")}))
    assets = dataclasses.replace(
        write_assets(folder),
        pictures={p.name: str(p) for p in (picture, unusual, fine, white)},
        hdris={hdri.name: str(hdri)},
    )
    return Files(folder, assets, picture, unusual, fine, white, hdri)


def letters() -> np.ndarray:
    """Return a 64×48 picture without any symmetry: an F, and other colours in the four corners."""
    image = np.full((64, 48, 3), 200, np.uint8)
    image[8:56, 12:20] = image[8:16, 12:38] = image[26:34, 12:30] = (40, 40, 40)
    image[:8, :8], image[:8, -8:], image[-8:, :8], image[-8:, -8:] = (
        (220, 30, 30),
        (30, 220, 30),
        (30, 30, 220),
        (220, 220, 30),
    )
    return image


SPOT = np.array([0.3, 0.8, 0.5]) / np.linalg.norm([0.3, 0.8, 0.5])


def sky() -> np.ndarray:
    """Return a 64×128 environment: grey with a wide bright spot towards SPOT."""
    from megasynth_attr.scene.probe import equirectangular_directions

    directions, _ = equirectangular_directions(64, 128)
    glow = np.exp((directions @ SPOT - 1) / 0.3)
    return (0.05 + glow[..., None] * np.array([0.9, 0.6, 0.3])).astype(np.float32)


# --- shapes -----------------------------------------------------------------------------------------------------------

BOX_LOW, BOX_HIGH = np.array([-0.5, -0.4, -0.3]), np.array([0.5, 0.4, 0.3])
CORNERS = [[x, y, z] for x in (-0.5, 0.5) for y in (-0.4, 0.4) for z in (-0.3, 0.3)]
VIEWS = camera(
    look_at((2.0, -1.5, 1.2), (0, 0, 0)),
    look_at((-1.1, 1.9, 0.7), (0.05, 0, 0.1), roll_deg=30),
    look_at((0.3, 0.1, 2.2), (0, 0, 0), up=(0, 1, 0)),
    fov_x_deg=47.3,
)
GROUND = ((0.0, 0.0, -0.05), (8.0, 8.0, 0.1))  # top at z = 0
TILTED = camera(
    look_at((0.4, -2.0, 1.6), (0, 0, 0)), look_at((0.0, -0.3, 1.0), (0.1, 0.4, 0), roll_deg=-50), fov_x_deg=60
)
FRONT = camera(
    look_at((2.0, 0, 0), (0, 0, 0)), fov_x_deg=float(2 * np.degrees(np.arctan(0.375 / 1.95)))
)  # face fills W
PICTURE_BOX = ((0.0, 0.0, 0.0), (0.1, 0.75, 1.0))  # like the paper's board: its faces x = ±0.05 are 3:4
FRONT_SIZE = (96, 128)
FACE_SIZE = (70, 49)
BALL_SIZE = (70, 49)  # of the balls under all lights: with many samples, so with few pixels
APPROACH = camera(look_at((4.0, 0, 0), (0, 0, 0)), look_at((2.0, 0, 0), (0, 0, 0)), fov_x_deg=10)
WORLD_HAZE = str(Path(__file__).with_name("world_haze.py"))
TOP = camera(look_at((0, 0, 3.0), (0, 0, 0), up=(0, 1, 0)), fov_x_deg=20)


def box_scene(look: Texture | None = None, light: Lighting = AMBIENT) -> Scene:
    return scene(geometry([((0, 0, 0), (1.0, 0.8, 0.6))], [solid("cuboid")]), VIEWS, look, light)


def sphere_scene(
    light: Lighting = AMBIENT, look: Texture | None = None, surface: str = "material", cells: int = 128
) -> Scene:
    shape = geometry([((0, 0, 0), (1.0, 1.0, 1.0))], [solid("ellipsoid", surface=surface)], tessellation=cells)
    return scene(shape, VIEWS if cells > 64 else camera(look_at((2.5, -2.0, 1.5), (0, 0, 0))), look, light)


def with_factor(spec: Scene, name: str, data: Any) -> Scene:
    return dataclasses.replace(spec, factors={**spec.factors, name: data})


def hazy(spec: Scene, density: float, grey: float = 1.0) -> Scene:
    return with_factor(spec, "haze", Haze(density, (grey, grey, grey), 0.0, 6.0))


def plane_scene() -> Scene:
    return scene(geometry([GROUND], [solid("cuboid")]), TILTED)


def many_boxes() -> Scene:
    """A grid of 20 × 15 boxes seen from above: more instances than fit into 8 bits."""
    boxes = [((0.1 * x - 0.95, 0.1 * y - 0.7, 0.0), (0.08, 0.08, 0.05)) for y in range(15) for x in range(20)]
    view = camera(look_at((0, 0, 4.0), (0, 0, 0), up=(0, 1, 0)), fov_x_deg=30)
    return scene(geometry(boxes, [solid("cuboid", box=i) for i in range(300)]), view)


def face_scene(slot: SlotMaterial, light: Lighting, bump_distance: float = 0.0) -> Scene:
    """A square face looked at from +x; its u axis is the picture's right, its v axis up. A red ball is beside it."""
    shape = geometry(
        [((0, 0, 0), (0.2, 1.0, 1.0)), ((0, 0.8, 0), (0.2, 0.2, 0.2))], [solid("cuboid"), solid("ellipsoid", 1, slot=1)]
    )
    view = camera(look_at((4.0, 0, 0), (0, 0, 0)), fov_x_deg=24)
    return scene(shape, view, texture(slot, SlotMaterial("red", None, None), bump_distance=bump_distance), light)


def lit_by(*suns: Any, ambient: float = 0.0) -> Lighting:
    return Lighting((1.0, 1.0, 1.0), ambient, tuple(suns), (), (), None)


def white_floor(files: Files, light: Lighting, window: Window | None = None) -> Scene:
    shape = geometry([GROUND], [solid("cuboid", surface="picture")], window=window)
    return scene(shape, TOP, texture(picture=picture_ref(files.white)), light)


# --- jobs -------------------------------------------------------------------------------------------------------------


def all_jobs(files: Files) -> list[dict[str, Any]]:
    """Return every job, in the order in which one process does them."""
    return [
        *geometry_jobs(files),
        *isolation_jobs(files),
        *material_jobs(files),
        *light_jobs(files),
        *scan_jobs(files.folder, files.assets, letters()),
        *bad_jobs(files),
    ]


def geometry_jobs(files: Files) -> list[dict[str, Any]]:
    assets, white = files.assets, texture(picture=picture_ref(files.white))
    return [
        job("box", box_scene(), assets, LANDSCAPE, layers=ALL_LAYERS, project=CORNERS),
        job("box_portrait", box_scene(), assets, PORTRAIT, layers=ALL_LAYERS, project=CORNERS),
        job("box_colour_only", box_scene(), assets, LANDSCAPE),
        job("sphere", sphere_scene(look=white, surface="picture"), assets, LANDSCAPE, layers=ALL_LAYERS, samples=4),
        job("plane", plane_scene(), assets, LANDSCAPE, layers=ALL_LAYERS, samples=16),
        job("many", many_boxes(), assets, (200, 150), layers="instance"),
    ]


def isolation_jobs(files: Files) -> list[dict[str, Any]]:
    plain, options = sphere_scene(cells=32), {"layers": ALL_LAYERS, "samples": 8, "denoiser": "best"}
    red = texture(SlotMaterial("red", None, None))
    mirror = texture(SlotMaterial("mirror", None, 0.02))
    leaning = texture(SlotMaterial("leans up", None, None))
    suns = lit_by(sun((1, 0, 1)), sun((0, -1, 0.3), 4.0), ambient=0.1)
    bulb = dataclasses.replace(
        AMBIENT, bulbs=(Bulb((0.75, -0.55, 0.5), 0.05, 1.0, (1.0, 0.5, 0.5)),)
    )  # before the camera
    glass = geometry([((0, 0, 0), (0.1, 1.0, 1.0))], [solid("cuboid", surface="glass")])
    opaque = geometry([((0, 0, 0), (0.1, 1.0, 1.0))], [solid("cuboid")])
    smoke = hazy(scene(opaque, APPROACH), 0.4, grey=0.0)
    world_haze = with_factor(sphere_scene(cells=32, light=bulb), "world_haze", {"density": 0.3})
    return [
        job("plain", plain, files.assets, **options),
        job("plain_again", plain, files.assets, **options),
        job("plain_whole_picture", plain, files.assets, **(options | {"denoiser": "none"}), whole_picture=True),
        job("plain_no_denoiser", plain, files.assets, **(options | {"denoiser": "none"})),
        job("plain_one_thread", plain, files.assets, **options, threads=1),
        job("plain_other_seed", dataclasses.replace(plain, noise_seed=8), files.assets, **options),
        job("red_texture", sphere_scene(cells=32, look=red), files.assets, **options),
        job("mirror_texture", sphere_scene(cells=32, look=mirror), files.assets, **options),
        job("leaning_texture", sphere_scene(cells=32, look=leaning), files.assets, **options),
        job("other_light", sphere_scene(cells=32, light=suns), files.assets, **options),
        job("bulb_light", sphere_scene(cells=32, light=bulb), files.assets, **options),
        job("haze", hazy(plain, 0.3), files.assets, **options),
        job("world_haze", world_haze, files.assets, **options, plugins=[WORLD_HAZE]),
        job("furnace", hazy(plain, 0.3), files.assets, (56, 40), samples=64, max_bounces=64),
        job("furnace_default", hazy(plain, 0.3), files.assets, (56, 40), samples=64),
        job("smoke", smoke, files.assets, (28, 28), samples=64, exposure_stops=3.0),
        job("glass", scene(glass, VIEWS), files.assets, layers=ALL_LAYERS, samples=4),
        job("opaque", scene(opaque, VIEWS), files.assets, layers=ALL_LAYERS, samples=4),
        job("default_quality", box_scene(), files.assets, (56, 42), samples=0, denoiser="best", quality="default"),
        job("reference_quality", box_scene(), files.assets, (56, 42), samples=0, denoiser="best", quality="reference"),
    ]


def material_jobs(files: Files) -> list[dict[str, Any]]:
    board = geometry([PICTURE_BOX], [solid("cuboid", surface="picture")])
    back = camera(look_at((-2.0, 0, 0), (0, 0, 0)), fov_x_deg=FRONT.fov_x_deg)
    shown, unusual, fine = (texture(picture=picture_ref(file)) for file in (files.picture, files.unusual, files.fine))
    right, left, above = (lit_by(sun(to)) for to in ((1, 1, 0), (1, -1, 0), (1, 0, 1)))

    def face(
        name: str, material: str, light: Lighting, roughness: float | None = None, metallic: float | None = None, **more
    ):
        slot = SlotMaterial(material, metallic, roughness)
        return job(
            name, face_scene(slot, light, more.pop("bump_distance", 0.0)), files.assets, FACE_SIZE, samples=16, **more
        )

    same = geometry(
        [((x, y, 0), (0.3, 0.3, 0.3)) for x in (-0.5, 0, 0.5) for y in (-0.5, 0, 0.5)],
        [solid("cuboid", i, slot=i) for i in range(9)],
    )
    slots = texture(
        *[SlotMaterial("grey", None, 0.5 if i % 2 else None) for i in range(4)], SlotMaterial("red", None, None)
    )
    return [
        job("picture_front", scene(board, FRONT, shown), files.assets, FRONT_SIZE, samples=8),
        job("picture_unusual", scene(board, FRONT, unusual), files.assets, FRONT_SIZE, samples=8),
        job("picture_back", scene(board, back, shown), files.assets, FRONT_SIZE, samples=8),
        job("picture_fine", scene(board, FRONT, fine), files.assets, (12, 16), samples=64),
        *[
            job(name, scene(board, FRONT, fine), files.assets, (12, 16), samples=64, texture_filter="mip")
            for name in ("picture_mip", "picture_mip_again")
        ],
        face("leans_right_lit_right", "leans right", right),
        face("leans_right_lit_left", "leans right", left),
        face("leans_up_lit_above", "leans up", above),
        face("leans_up_lit_right", "leans up", right),
        face("ramp_lit_right", "ramp", right, bump_distance=0.4),
        face("ramp_lit_left", "ramp", left, bump_distance=0.4),
        face("ramp_off_lit_right", "ramp", right),
        face("ramp_off_lit_left", "ramp", left),
        face("mirror", "mirror", lit_by(ambient=0.5)),
        face("mirror_exposed", "mirror", lit_by(ambient=0.5), exposure_stops=1.0),
        face("metal_by_map", "mirror", lit_by(sun((1, 0.0, 0.02), 0.05, angle_deg=2.0))),
        face("metal_made_rough", "mirror", lit_by(sun((1, 0.0, 0.02), 0.05, angle_deg=2.0)), roughness=1.0),
        face("metal_made_dielectric", "mirror", lit_by(ambient=0.5), metallic=0.0, roughness=1.0),
        face("rough_metal", "rough metal", lit_by(ambient=0.5)),
        face("grey_made_metal", "grey", lit_by(ambient=0.5), metallic=1.0, roughness=0.0),
        job("shared", scene(same, VIEWS, slots), files.assets, (56, 42)),
    ]


def sky_light(files: Files, rotation_deg: float, strength: float = 1.0) -> Lighting:
    digest = hashlib.sha256(files.hdri.read_bytes()).hexdigest()
    return dataclasses.replace(NO_LIGHT, hdri=Hdri(files.hdri.name, digest, rotation_deg, strength))


SUNS = lit_by(sun((0.5, -1, 0.4), 1.0), sun((1, 0.3, 0.8), 0.7, angle_deg=20.0), ambient=0.1)
AREA = AreaLight((0.2, -0.1, 1.5), (0.0, 0.0, -1.0), 0.1, 8.0, (1.0, 1.0, 1.0))
BULB = Bulb((-0.2, 0.15, 1.2), 0.03, 8.0, (1.0, 1.0, 1.0))
WINDOW = Window((0.0, 5.0, 1.0), (1.0, 0.0, 1.0), (0.0, 1.0, 0.0))


def light_jobs(files: Files) -> list[dict[str, Any]]:
    white = texture(picture=picture_ref(files.white))

    def ball(name: str, light: Lighting, **more):
        shape = sphere_scene(light, white, surface="picture", cells=32)
        return job(name, shape, files.assets, BALL_SIZE, samples=64, **more)

    def floor(name: str, light: Lighting, window: Window | None = None):
        return job(name, white_floor(files, light, window), files.assets, (42, 42), samples=64)

    pane = geometry(
        [GROUND, ((0, 0, 0.5), (1.5, 1.5, 0.02))], [solid("cuboid", 0, "picture"), solid("cuboid", 1, "glass")]
    )
    side = camera(look_at((3.0, 0.0, 0.25), (0, 0, 0.2)), fov_x_deg=20)
    window_sun = sun((0.8, 0.0, 0.6), 0.5, frame="window")
    return [
        ball("suns", SUNS),
        ball("sky", sky_light(files, 0.0)),
        ball("sky_turned", sky_light(files, 130.0, 0.5)),
        floor("area_light", dataclasses.replace(NO_LIGHT, areas=(AREA,))),
        floor("bulb", dataclasses.replace(NO_LIGHT, bulbs=(BULB,))),
        floor("window_sun", lit_by(window_sun, sun((0, 0, 1), 0.1)), WINDOW),
        floor("no_window", lit_by(window_sun, sun((0, 0, 1), 0.1))),
        job("under_glass", scene(pane, side, white, lit_by(sun((0, 0, 1), 0.5))), files.assets, (56, 28), samples=16),
    ]


def bad_jobs(files: Files) -> list[dict[str, Any]]:
    """Jobs that must fail, each with one clear message; the process goes on with the next."""
    cut = files.folder / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:3000])
    fake = files.folder / "fake.exr"
    fake.write_bytes(b"this is no picture")
    fake_sky = Hdri("fake.exr", hashlib.sha256(fake.read_bytes()).hexdigest(), 0.0, 1.0)
    grey = files.assets.materials["grey"]

    def with_files(**changes: str) -> Assets:
        return dataclasses.replace(files.assets, materials={"grey": grey | changes})

    def picture_job(name: str, reference: PictureRef, **pictures: str):
        shape = geometry([PICTURE_BOX], [solid("cuboid", surface="picture")])
        assets = dataclasses.replace(files.assets, pictures=pictures)
        return job(name, scene(shape, FRONT, texture(picture=reference)), assets)

    def sky_job(name: str, sky: Hdri, **hdris: str):
        light = dataclasses.replace(NO_LIGHT, hdri=sky)
        return job(name, box_scene(light=light), dataclasses.replace(files.assets, hdris=hdris))

    good, away = picture_ref(files.white), camera(look_at((2, 0, 0), (3, 0, 0)))
    no_map = dataclasses.replace(files.assets, materials={"grey": {k: v for k, v in grey.items() if k != "normal"}})
    return [
        job("no_material", box_scene(), Assets({}, {}, {})),
        job("no_map", box_scene(), no_map),
        job("missing_map", box_scene(), with_files(roughness=str(files.folder / "nowhere.png"))),
        job("damaged_map", box_scene(), with_files(basecolor=str(cut))),
        picture_job("no_picture", good),
        picture_job("missing_picture", good, **{good.name: str(files.folder / "nowhere.png")}),
        picture_job("other_picture", good, **{good.name: str(files.picture)}),
        picture_job("damaged_picture", PictureRef("cut", hashlib.sha256(cut.read_bytes()).hexdigest()), cut=str(cut)),
        picture_job("unreadable_picture", PictureRef("fake", fake_sky.sha256), fake=str(fake)),
        sky_job("missing_sky", Hdri("x.exr", "0", 0.0, 1.0), **{"x.exr": str(files.folder / "x.exr")}),
        sky_job("unreadable_sky", fake_sky, **{"fake.exr": str(fake)}),
        *[job(f"device_{d}", box_scene(), files.assets, device=d) for d in ("cuda", "optix", "hip", "oneapi", "metal")],
        job("oidn_demanded", box_scene(), files.assets, (56, 42), denoiser="oidn"),
        job("denoised_on_gpu", box_scene(), files.assets, (56, 42), denoiser_device="gpu"),
        job("dark", box_scene(light=NO_LIGHT), files.assets),
        job(
            "looks_away", dataclasses.replace(box_scene(), factors=box_scene().factors | {"camera": away}), files.assets
        ),
        job("works_after_errors", box_scene(), files.assets, LANDSCAPE, layers=ALL_LAYERS),
    ]


def leak_jobs(files: Files) -> list[dict[str, Any]]:
    """Fifty tiny scenes in one process, the first ten of which warm it up."""
    return [
        job("warm_up", sphere_scene(SUNS, cells=16), files.assets, (28, 28), builds=10),
        job("forty", sphere_scene(SUNS, cells=16), files.assets, (28, 28), builds=40),
    ]
