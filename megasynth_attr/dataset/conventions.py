"""What the numbers in a dataset mean; copied into every dataset, so that the files explain themselves."""

from __future__ import annotations

DATASET_FORMAT = "megasynth-attr dataset 1"
CAMERAS_FORMAT = "megasynth-attr cameras 1"
RENDER_FORMAT = "megasynth-attr render 1"
CHECKSUMS_FORMAT = "megasynth-attr checksums 1"

CAMERA_CONVENTIONS = {
    "camera_from_world": "4×4, X_camera = M X_world (column vectors); OpenCV axes: x right, y down, z forward",
    "intrinsics": "3×3 in pixels; fx = fy = (width/2)/tan(fov_x/2), cx = width/2, cy = height/2",
    "pixels": "the centre of pixel (u, v) is (u + 0.5, v + 0.5); u to the right, v down, (0, 0) top left",
    "world": "right-handed, z up; scene units: the scene's bounding box touches ±1 on its longest axis",
}

FORMER = {  # what they were called before, with the same meaning
    "rgb": "rgb/*.png, 8-bit RGBA: sRGB transfer curve of exposed linear Rec.709 colour, no tone mapping; straight "
    "alpha; 0 where no surface is hit"
}
CONVENTIONS = CAMERA_CONVENTIONS | {
    "rgb": "rgb/*.png, 8-bit RGBA: sRGB transfer curve of exposed linear Rec.709 colour (developed by the factor "
    "sensor, where there is one), no tone mapping; straight alpha; 0 where no surface is hit, unless in haze",
    "depth": "depth/*.exr, channel Z: planar z along the optical axis at the pixel centre, scene units; 0 where the "
    "ray hits nothing",
    "normal": "normal/*.exr, channels X, Y, Z, half precision: world space, unit length, facing the camera; 0 where "
    "the ray hits nothing",
    "instance": "instance/*.png, 16 bit: index of the primitive in the scene file + 1; 0 = background",
    "position": "position/*.exr, channels X, Y, Z, float32: world position of the surface; 0 where the ray hits "
    "nothing",
    "quaternion": "scalar last (x, y, z, w)",
    "hashes": "SHA-256 of the canonical JSON (sorted keys, no spaces) of one factor's data in scene.json",
}
