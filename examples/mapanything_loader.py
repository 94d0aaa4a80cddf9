"""A data set of MapAnything's for what ``megasynth_attr.dataset.export format=wai`` writes. Copy it and use it there.

::

    python -m megasynth_attr.dataset.export format=wai dataset=runs/texture/texture_00 out=wai val_scenes=10

    MegaSynthWAI(ROOT="wai/texture_00", dataset_metadata_dir="wai/metadata", split="train", num_views=4,
                 covisibility_thres=0.25, resolution=(518, 518), transform="imgnorm", data_norm_type="dinov2")

It gives what the base class asks of ``_get_views``: pictures, planar z, world-from-camera with OpenCV axes, and cx, cy
for whole numbers as pixel centres. Everything else (resizing, points, checks) is the base class's.
"""

from pathlib import Path

import numpy as np
from mapanything.datasets.base.base_dataset import BaseDataset
from mapanything.utils.wai.core import load_data, load_frame


class MegaSynthWAI(BaseDataset):
    """Scenes of one exported dataset; views that see the same surfaces are found by the exported covisibility."""

    def __init__(self, *args, ROOT, dataset_metadata_dir, split, **kwargs):  # noqa: N803, the name that its configs use
        super().__init__(*args, split=split, **kwargs)
        self.root = Path(ROOT)
        self.dataset_metadata_dir = Path(dataset_metadata_dir)
        self.is_metric_scale = False  # one unit is half the longest side of the scene's bounding box
        self.is_synthetic = True
        self._load_data()

    def _load_data(self):
        listed = self.dataset_metadata_dir / self.split / f"{self.root.name}_scene_list_{self.split}.npy"
        self.scenes = np.load(listed).tolist()
        self.num_of_scenes = len(self.scenes)

    def _get_views(self, sampled_idx, num_views_to_sample, resolution):
        folder = self.root / self.scenes[sampled_idx]
        meta = load_data(folder / "scene_meta.json", "scene_meta")
        shares = load_data(folder / meta["scene_modalities"]["pairwise_covisibility"]["scene_key"], "mmap")
        names = list(meta["frame_names"])
        chosen = self._sample_view_indices(num_views_to_sample, len(names), shares)
        return [self._view(folder, meta, names[index], resolution) for index in chosen]

    def _view(self, folder, meta, name, resolution):
        frame = load_frame(folder, name, modalities=["image", "depth"], scene_meta=meta)
        picture = (frame["image"].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        depth = frame["depth"].numpy().astype(np.float32)
        hit = (depth > 0).astype(int)  # the model learns its mask from this: 0 where there is no surface
        picture, depth, intrinsics, (hit,) = self._crop_resize_if_necessary(
            image=picture,
            resolution=resolution,
            depthmap=depth,
            intrinsics=frame["intrinsics"].numpy().astype(np.float32),
            additional_quantities=[hit],
        )
        return {
            "img": picture,
            "depthmap": depth,
            "camera_pose": frame["extrinsics"].numpy().astype(np.float32),  # world from camera
            "camera_intrinsics": intrinsics,
            "non_ambiguous_mask": hit,
            "dataset": "MegaSynth-Attr",
            "label": f"{meta['dataset_name']}/{meta['scene_name']}",
            "instance": name,
        }
