"""``python -m megasynth_train.predict``: cameras, depth and points of one scene from a folder of pictures.

::

    <out>/predictions.npz   PredictedScene's arrays and ``visible`` [S, H, W]
    <out>/cameras.json      files, poses, intrinsics and how the network's pixels lie in the files
    <out>/points.ply        the visible points above the confidence threshold, coloured
    <out>/overview.png      input, depth and confidence by view, the points from two sides
"""

from __future__ import annotations

import importlib
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, is_out_of_memory, run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.files import json_bytes, storage_errors, sync_folder, write_durably
from megasynth_attr.core.run_folder import Kind, check, is_one
from megasynth_attr.core.stop import StopRequest
from megasynth_attr.core.temporary import TMP, remove_leftovers, working_folder
from megasynth_train.adapters import load_adapter
from megasynth_train.command import Help, parse
from megasynth_train.data.geometry import decode_pose, unproject
from megasynth_train.data.images import MODES, Picture, image_files, load_pictures
from megasynth_train.evaluate.overview import save_overview
from megasynth_train.evaluate.ply import ply_bytes
from megasynth_train.finetune import base_model
from megasynth_train.training.processes import make_accelerator
from megasynth_train.training.settings import ModelSettings, TrainSettings
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.model import VGGT, compile_blocks
from megasynth_train.vggt.precision import autocast, set_backends

FORMAT = "megasynth-attr prediction 1"
PREDICTION = Kind("prediction", "cameras.json", FORMAT, alone=False)  # its files may lie among others
ARRAYS, CAMERAS, POINTS, OVERVIEW = "predictions.npz", PREDICTION.record, "points.ply", "overview.png"
WORLD = "the first camera (OpenCV axes: x right, y down, z forward); lengths in the network's unit"

HELP = Help(
    usage="python -m megasynth_train.predict images=FOLDER out=FOLDER [key=value ...]",
    explanation=(
        "Predicts cameras, depth and points of one scene from the pictures in a folder (all taken of the same,\n"
        "unmoving scene; the first is the world), and writes predictions.npz, cameras.json, points.ply, overview.png."
    ),
    examples=(
        "python -m megasynth_train.predict images=photos checkpoint=facebook/VGGT-1B out=runs/photos",
        "python -m megasynth_train.predict images=photos checkpoint=facebook/VGGT-1B adapter=runs/lora/adapter "
        "mode=pad stride=3 out=runs/photos_lora",
    ),
)


@dataclass(frozen=True)
class PredictSettings:
    """What is read, how, and where the result goes."""

    images: str = setting("", "folder of pictures of one scene: PNG, JPEG or WebP")
    out: str = setting("", "output folder")
    adapter: str = setting(
        "", "folder of a trained adapter, ours or PEFT's, for the same base model; empty: the base model itself"
    )
    basis: str = setting("", "adapters of mode=subspace: file of their basis, if it was moved since training")
    mode: str = setting(
        "crop", "crop: full width, tall pictures lose top and bottom; pad: everything, on a white square", options=MODES
    )
    width_px: int = setting(
        0, "width of the network's input, a multiple of the patch size; 0: the model's own", minimum=0
    )
    stride: int = setting(1, "use every n-th picture", minimum=1)
    max_views: int = setting(0, "use at most so many pictures; 0: all", minimum=0)
    drop_percent: float = setting(
        20.0, "share of the visible points left out of points.ply: the least confident ones", minimum=0, maximum=100
    )
    pixel_centre: float = setting(
        0.5, "where the first pixel's middle lies: 0.5, or 0 as in the released code", minimum=0, maximum=0.5
    )
    overview: bool = setting(True, "draw overview.png, which needs matplotlib")
    device: str = setting("auto", "auto: CUDA if there is one", options=["auto", "cpu", "cuda"])
    model: ModelSettings = field(default_factory=ModelSettings)


@dataclass(frozen=True)
class PredictedScene:
    """What the model says about S views of one scene; float32 arrays on the host.

    The world is the first camera and the unit of length the network's own, in which a scene's points are at a mean
    distance of about 1 from the first camera. Cameras are OpenCV: x right, y down, z forward.
    """

    pose_encoding: np.ndarray  # [S, 9], see geometry.py
    camera_from_world: np.ndarray  # [S, 4, 4]
    intrinsics: np.ndarray  # [S, 3, 3], pixels of the network's input
    depth_z: np.ndarray  # [S, H, W]
    confidence: np.ndarray  # [S, H, W], above 1
    points_world: np.ndarray  # [S, H, W, 3]


@torch.inference_mode()
def predict(
    model: VGGT,
    images: torch.Tensor,
    device: torch.device | str,
    precision: str = "auto",
    *,
    pixel_centre: float = 0.5,
) -> PredictedScene:
    """Return the prediction for one scene's ``images`` (float [S, 3, H, W], RGB in [0, 1]), all views in one pass.

    The model is moved to ``device`` and put into evaluation mode. Points come from the predicted depth and cameras,
    not from the point head. Raises ConfigError if the model lacks the camera or the depth head, EnvironmentProblem if
    the device's memory does not suffice.
    """
    device = torch.device(device)
    model.to(device).eval()
    size_hw = (images.shape[-2], images.shape[-1])
    try:
        with autocast(device, precision):
            answer = model(images.to(device))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise EnvironmentProblem(
            f"{len(images)} views of {size_hw[1]}×{size_hw[0]} px do not fit into the memory of {device}; use fewer "
            "(max_views=, stride=) or a smaller width_px="
        ) from error
    if not answer.pose_encodings or answer.depth is None or answer.depth_confidence is None:
        raise ConfigError("this model has no camera head or no depth head; both are needed for points")
    encoding = answer.pose_encodings[-1][0].float()
    cameras = decode_pose(encoding, size_hw)
    depth_z = answer.depth[0].float()
    points = unproject(depth_z, cameras.intrinsics, cameras.camera_from_world, pixel_centre=pixel_centre)
    arrays = (
        encoding,
        cameras.camera_from_world,
        cameras.intrinsics,
        depth_z,
        answer.depth_confidence[0].float(),
        points,
    )
    return PredictedScene(*(array.cpu().numpy() for array in arrays))


def as_images(pictures: Sequence[Picture]) -> torch.Tensor:
    """Return the pictures as the model takes them: float32 [S, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.stack([picture.rgb for picture in pictures])).permute(0, 3, 1, 2).float() / 255.0


def confident(scene: PredictedScene, visible: np.ndarray, drop_percent: float) -> np.ndarray:
    """Return which points [S, H, W] to keep: visible, finite, and not among the ``drop_percent`` % least confident."""
    usable = visible & np.isfinite(scene.points_world).all(axis=-1) & np.isfinite(scene.confidence)
    if not usable.any():
        return usable
    return usable & (scene.confidence >= np.percentile(scene.confidence[usable], drop_percent))


def run(settings: PredictSettings) -> list[str]:
    """Predict as ``settings`` say, write all files, return lines to tell. Nothing is written before all is known.

    Interrupted after a signal: then nothing has been written. One that comes while files are written is too late.
    """
    if not settings.images:
        raise ConfigError("images= is missing: name a folder of pictures")
    if not settings.out:
        raise ConfigError("out= is missing: name the output folder, e.g. out=runs/prediction")
    out = Path(settings.out).expanduser()
    if out.resolve() == Path(settings.images).expanduser().resolve():
        raise ConfigError(f"out={out} is the folder of the pictures; choose another, e.g. out={out / 'prediction'}")
    _check_out(out, settings.overview)
    if settings.overview:
        _require_matplotlib()
    with StopRequest(patient=False, advice="nothing has been written; run the same command again"):
        return _predict_folder(settings, out)


def _predict_folder(settings: PredictSettings, out: Path) -> list[str]:
    files = image_files(Path(settings.images).expanduser(), stride=settings.stride, max_views=settings.max_views)
    device = make_accelerator(settings.device).device
    set_backends()
    config = named_config(settings.model.size)
    width_px = settings.width_px or config.image_size_px
    pictures = load_pictures(
        files.used, settings.mode, width_px, config.patch_size_px
    )  # before the weights: it may fail
    notes = [files.note] if files.note else []
    notes += [f"{p.path.name} holds {p.frames} frames; its first one is used" for p in pictures if p.frames > 1]
    model = base_model(TrainSettings(model=settings.model), notes)
    if settings.adapter:
        adapted = load_adapter(model, Path(settings.adapter).expanduser(), settings.basis)
        model, notes = adapted.model, [*notes, *adapted.notes]
    if settings.model.compile:
        compile_blocks(model)
    scene = predict(model, as_images(pictures), device, settings.model.precision, pixel_centre=settings.pixel_centre)
    if not (np.isfinite(scene.pose_encoding).all() and np.isfinite(scene.depth_z).all()):
        raise ConfigError("the model answers with infinite or undefined numbers; try model.precision=fp32")
    keep = confident(scene, np.stack([picture.visible for picture in pictures]), settings.drop_percent)
    with StopRequest():  # which keeps older and newer files from being mixed
        write_prediction(out, scene, pictures, keep, _record(settings), overview=settings.overview)
    notes.append(f"{len(pictures)} views, {int(keep.sum()):,} of {keep.size:,} points: {out}")
    return notes


def write_prediction(
    out: Path,
    scene: PredictedScene,
    pictures: Sequence[Picture],
    keep: np.ndarray,
    record: dict[str, Any],
    *,
    overview: bool = True,
) -> None:
    """Write all files into a temporary folder inside ``out``, then put them in place of older ones.

    ``keep`` [S, H, W]: the points of points.ply; ``record``: added to cameras.json. EnvironmentProblem if the disk
    refuses; what an earlier prediction left is then untouched.
    """
    rgb = np.stack([picture.rgb for picture in pictures])
    visible = np.stack([picture.visible for picture in pictures])
    with storage_errors("the prediction", out):
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out / TMP)
        replaces = is_one(out, PREDICTION)
        with working_folder(out / TMP, "prediction") as work:
            write_durably(work / ARRAYS, _npz_bytes(**asdict(scene), visible=visible))
            write_durably(work / POINTS, ply_bytes(scene.points_world[keep], rgb[keep]))
            if overview:
                save_overview(work / OVERVIEW, scene, rgb, keep, [picture.path.name for picture in pictures])
            write_durably(work / CAMERAS, json_bytes({**record, **_cameras(scene, pictures)}))
            for path in sorted(work.iterdir()):
                path.replace(out / path.name)
            if replaces and not overview:
                (out / OVERVIEW).unlink(missing_ok=True)  # it would show an earlier prediction
        sync_folder(out)


def _check_out(out: Path, overview: bool) -> None:
    """Raise ConfigError if ``out`` is a file, or holds one that is no prediction's and would be replaced."""
    check(out, PREDICTION)
    written = (ARRAYS, CAMERAS, POINTS, *([OVERVIEW] if overview else []))
    if not is_one(out, PREDICTION) and (lost := [name for name in written if (out / name).exists()]):
        raise ConfigError(f"out={out} holds {lost[0]}, which is no prediction's and would be lost; choose another out=")


def _npz_bytes(**arrays: np.ndarray) -> bytes:
    """Return an .npz file; in memory first, since its writer does not survive a full disk quietly."""
    with io.BytesIO() as buffer:
        np.savez(buffer, **arrays)
        return buffer.getvalue()


def _cameras(scene: PredictedScene, pictures: Sequence[Picture]) -> dict[str, Any]:
    height, width = scene.depth_z.shape[1:]
    frames = [
        {
            "file": picture.path.name,
            "file_size_wh": picture.file_size_wh,
            "scale_xy": picture.scale_xy,
            "offset_xy": picture.offset_xy,
            "camera_from_world": pose.tolist(),
            "intrinsics": intrinsics.tolist(),
            "fov_x_deg": math.degrees(2 * math.atan(0.5 * width / intrinsics[0, 0])),
            "fov_y_deg": math.degrees(2 * math.atan(0.5 * height / intrinsics[1, 1])),
        }
        for picture, pose, intrinsics in zip(pictures, scene.camera_from_world, scene.intrinsics, strict=True)
    ]
    return {"width_px": width, "height_px": height, "world": WORLD, "frames": frames}


def _record(settings: PredictSettings) -> dict[str, Any]:
    return {"format": FORMAT, "settings": asdict(settings)}


def _require_matplotlib() -> None:
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise EnvironmentProblem(
            f"overview.png needs matplotlib, which cannot be imported ({error}); "
            "install it with: pip install 'megasynth-attr[report]', or use overview=false"
        ) from None


def main(words: list[str]) -> None:
    """Predict from the command line's words."""
    for line in run(parse(PredictSettings, words, HELP)):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
