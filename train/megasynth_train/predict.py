"""``python -m megasynth_train.predict``: cameras, depth and points of one scene from a folder of pictures.

evaluate/prediction_files.py describes the files it writes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.machine import refuse_several_processes
from megasynth_attr.core.pages.template import require_report_libraries
from megasynth_attr.core.stop import StopRequest
from megasynth_train.adapters import load_adapter
from megasynth_train.data.images import MODES, Picture, load_pictures
from megasynth_train.data.scene import scene_pictures
from megasynth_train.evaluate.prediction import confident, predict
from megasynth_train.evaluate.prediction_files import FORMAT, OVERVIEW, check_out, write_prediction
from megasynth_train.training.arithmetic import choose_arithmetic
from megasynth_train.training.base_model import base_model
from megasynth_train.training.processes import make_accelerator
from megasynth_train.training.settings import ModelSettings
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.precision import set_backends

HELP = Help(
    usage="python -m megasynth_train.predict images=FOLDER out=FOLDER [key=value ...]",
    explanation=(
        "Predicts cameras, depth and points of one static scene from the pictures in a folder, in the frame of the\n"
        "first camera, and writes predictions.npz, cameras.json, points.ply and overview.png."
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

    images: str = setting(
        "", "folder of pictures of one scene, PNG, JPEG or WebP, or a scene in another layout (docs/own-data.md)"
    )
    out: str = setting("", "output folder")
    adapter: str = setting(
        "", "folder of a trained adapter, ours or PEFT's, for the same base model; empty: the base model itself"
    )
    basis: str = setting("", "adapters of mode=subspace: file of their basis, if it was moved since training")
    mode: str = setting(
        "crop",
        "crop: full width, top and bottom of tall pictures cut off; pad: the whole picture on a white square",
        options=MODES,
    )
    width_px: int = setting(
        0, "width of the network's input, a multiple of the patch size; 0: the model's own", minimum=0
    )
    stride: int = setting(1, "use every n-th picture", minimum=1)
    max_views: int = setting(0, "use at most this many pictures; 0: all", minimum=0)
    drop_percent: float = setting(
        20.0, "percentage of visible points, the least confident, left out of points.ply", minimum=0, maximum=100
    )
    pixel_centre: float = setting(
        0.5, "coordinate of the first pixel's centre: 0.5, or 0 as in the released code", minimum=0, maximum=0.5
    )
    overview: bool = setting(True, "draw overview.png, which needs matplotlib")
    device: str = setting("auto", "auto: CUDA if available", options=["auto", "cpu", "cuda"])
    model: ModelSettings = field(default_factory=ModelSettings)


def as_images(pictures: Sequence[Picture]) -> torch.Tensor:
    """Return the pictures as the model takes them: float32 [S, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.stack([picture.rgb for picture in pictures])).permute(0, 3, 1, 2).float() / 255.0


def run(settings: PredictSettings) -> list[str]:
    """Predict as ``settings`` say, write all files once everything is computed, and return lines to print.

    Raises Interrupted after a signal, with nothing written, unless the files are already being written.
    """
    if not settings.images:
        raise ConfigError("images= is missing: name a folder of pictures")
    if not settings.out:
        raise ConfigError("out= is missing: name the output folder, e.g. out=runs/prediction")
    out = Path(settings.out)
    if out.resolve() == Path(settings.images).resolve():
        raise ConfigError(f"out={out} is the folder of the pictures; choose another, e.g. out={out / 'prediction'}")
    check_out(out, settings.overview)
    if settings.overview:
        require_report_libraries("matplotlib", what=OVERVIEW, otherwise=", or use overview=false")
    with StopRequest(patient=False, advice="nothing has been written; run the same command again"):
        return _predict_folder(settings, out)


def _predict_folder(settings: PredictSettings, out: Path) -> list[str]:
    files = scene_pictures(Path(settings.images), stride=settings.stride, max_views=settings.max_views)
    device = make_accelerator(settings.device).device
    set_backends()
    config = named_config(settings.model.size)
    arithmetic = choose_arithmetic(settings.model, config, device)
    width_px = settings.width_px or config.image_size_px
    # before the weights are loaded, because this may fail
    pictures = load_pictures(files, settings.mode, width_px, config.patch_size_px)
    notes = [files.note] if files.note else []
    notes += [f"{p.path.name} holds {p.frames} frames; only the first is used" for p in pictures if p.frames > 1]
    model = base_model(settings.model, notes)
    if settings.adapter:
        adapted = load_adapter(model, Path(settings.adapter), settings.basis)
        model, notes = adapted.model, [*notes, *adapted.notes]
    notes.append(str(arithmetic))
    arithmetic.apply(model.requires_grad_(False))
    scene = predict(model, as_images(pictures), device, settings.model.precision, pixel_centre=settings.pixel_centre)
    if not (np.isfinite(scene.pose_encoding).all() and np.isfinite(scene.depth_z).all()):
        raise ConfigError("the model's output is not finite; try model.precision=fp32")
    keep = confident(scene, np.stack([picture.visible for picture in pictures]), settings.drop_percent)
    record = {"format": FORMAT, "settings": asdict(settings)}
    with StopRequest():  # a signal must not leave a mix of older and newer files
        write_prediction(out, scene, pictures, keep, record, overview=settings.overview)
    notes.append(f"{len(pictures)} views, {int(keep.sum()):,} of {keep.size:,} points: {out}")
    return notes


def main(words: list[str]) -> None:
    """Predict as the command line says and print what was done."""
    refuse_several_processes("predict")
    for line in run(parse(PredictSettings, words, HELP)):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
