"""Makes docs/images/demo.png, own_meshes.png and bodies.png: a row for each dataset, a column for each scene.

    python -m megasynth_attr.pipeline preset=demo downstream= dataset_count=1 scene_count=6 frames=2 \\
        render.width_px=252 render.height_px=252 quality=reference stages=generate out=runs/picture
    python tools/readme_picture.py runs/picture docs/images/demo.png

docs/own-meshes.md and docs/downstream.md have the commands of the others.
"""

import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from megasynth_attr.dataset.reader import open_experiment

LABEL_PX = 132
ORDER = ("scan", "texture", "geometry", "camera", "lighting", "thuman", "twok2k", "spoof_heads")


def row(dataset) -> np.ndarray:
    """Return the last view of every scene side by side on white, with the attribute's name on the left."""
    views = [scene.views[-1].image.astype(np.float32) / 255 for scene in dataset.scenes]
    pictures = [view[..., :3] * view[..., 3:] + 1 - view[..., 3:] for view in views]
    strip = np.round(np.concatenate(pictures, axis=1) * 255).astype(np.uint8)
    label = Image.new("RGB", (LABEL_PX, strip.shape[0]), "white")
    font = ImageFont.load_default(size=24)
    ImageDraw.Draw(label).text(
        (8, strip.shape[0] // 2), dataset.attribute.removeprefix("spoof_"), fill=(40, 40, 40), font=font, anchor="lm"
    )
    return np.concatenate([np.asarray(label), strip], axis=1)


def main(*folders: str) -> None:
    *experiments, target = folders
    found = [dataset for experiment in experiments for dataset in open_experiment(experiment)]
    datasets = sorted(found, key=lambda d: ORDER.index(d.attribute))
    picture = Image.fromarray(np.concatenate([row(dataset) for dataset in datasets]))
    picture.quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
