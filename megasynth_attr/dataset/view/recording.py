"""The same as a recording for rerun (https://rerun.io), for people who work with it; needs the extra ``view``."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from megasynth_attr.core.errors import EnvironmentProblem, importing
from megasynth_attr.dataset.view.scene import ShownScene

TIMELINE = "frame"
POINT_RADIUS = 0.004  # scene units: a scene is 2 long
JPEG_QUALITY = 85


def require_libraries() -> None:
    """Raise EnvironmentProblem if rerun cannot be imported."""
    with importing(
        "format=rerun needs the package rerun-sdk, which cannot be imported ({error}); install it with: "
        "pip install 'megasynth-attr[view]', or leave format= out: the page needs nothing"
    ):
        import rerun  # noqa: F401


def recording_of(dataset: str, scenes: Sequence[ShownScene]) -> bytes:
    """Return the bytes of an .rrd file: one 3-D view per scene, z up, frames on the timeline "frame".

    Entities: ``<scene>/points``, ``<scene>/camera`` (world from camera; OpenCV axes) and the pictures in it.
    """
    import rerun as rr
    import rerun.blueprint as rrb

    names = [scene.name for scene in scenes]
    stream = rr.RecordingStream(dataset, recording_id="/".join([dataset, *names]), send_properties=False)
    output = rr.binary_stream(stream)
    views = [rrb.Spatial3DView(origin=name, name=f"scene {name}") for name in names]
    rr.send_blueprint(rrb.Blueprint(rrb.Horizontal(*views)), recording=stream)
    for scene in scenes:
        camera, size = f"{scene.name}/camera", scene.pictures[0].size
        # a picture is smaller than the frame, and rerun counts in its pixels
        scale = np.diag([size[0] / scene.width_px, size[1] / scene.height_px, 1])
        intrinsics, axes = scale @ scene.intrinsics, rr.ViewCoordinates.RDF
        pinhole = rr.Pinhole(image_from_camera=intrinsics, resolution=size, camera_xyz=axes)
        points = rr.Points3D(scene.cloud.points, colors=scene.cloud.colours, radii=POINT_RADIUS)
        stream.log(scene.name, rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        stream.log(f"{scene.name}/points", points, static=True)
        stream.log(camera, pinhole, static=True)
        for frame, pose, picture in zip(scene.frames, scene.camera_from_world, scene.pictures, strict=True):
            world_from_camera = np.linalg.inv(pose)
            stream.set_time(TIMELINE, sequence=frame)
            place = rr.Transform3D(translation=world_from_camera[:3, 3], mat3x3=world_from_camera[:3, :3])
            stream.log(camera, place)
            stream.log(f"{camera}/picture", rr.EncodedImage(contents=_jpeg(picture), media_type="image/jpeg"))
    content = output.read()
    if content is None:
        raise EnvironmentProblem("rerun did not hand over the recording in time; run the same command again")
    return content


def _jpeg(picture: Image.Image) -> bytes:
    """Return a picture on white as JPEG."""
    content = io.BytesIO()
    white = Image.new("RGBA", picture.size, "white")
    Image.alpha_composite(white, picture).convert("RGB").save(content, format="JPEG", quality=JPEG_QUALITY)
    return content.getvalue()
