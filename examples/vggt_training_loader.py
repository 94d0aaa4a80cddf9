"""A data set of the published VGGT training code (``training/data``) for our datasets. Copy it into ``data/datasets``.

It reads datasets as they are, so ``megasynth_attr`` must be installed there, and nothing needs to be exported:

::

    dataset:
      _target_: data.datasets.megasynth.MegaSynthDataset
      split: train
      folder: runs/texture      # one dataset or a folder of several

It gives what the others there give from ``get_data``: camera from world with OpenCV axes (3×4), planar z, and cx, cy.
That code was published with two ideas of where the centre of the first pixel is, (0, 0) and (0.5, 0.5): asked for the
point of one pixel, it says which, and cx and cy are given accordingly.
"""

import random
from pathlib import Path

import numpy as np
from data.base_dataset import BaseDataset
from data.dataset_util import depth_to_cam_coords_points

from megasynth_attr.dataset.reader import open_datasets

PIXEL_CENTRE = float(depth_to_cam_coords_points(np.ones((1, 1)), np.eye(3))[0, 0, 0])
TEST_SHARE = 0.1  # of the scenes of each dataset, the last ones


class MegaSynthDataset(BaseDataset):
    """Sequences are scenes; those of the last tenth of each dataset are the split test."""

    def __init__(self, common_conf, split="train", folder=".", len_train=100_000, len_test=10_000):
        super().__init__(common_conf=common_conf)
        self.training = common_conf.training
        self.inside_random = common_conf.inside_random
        self.get_nearby = common_conf.get_nearby
        self.allow_duplicate_img = common_conf.allow_duplicate_img
        if split not in ("train", "test"):
            raise ValueError(f"split={split}: write train or test")
        self.len_train = len_train if split == "train" else len_test
        self.sequences = {}
        for dataset in open_datasets(Path(folder)):
            scenes = dataset.scenes
            first = len(scenes) - int(np.ceil(TEST_SHARE * len(scenes)))
            for scene in scenes[:first] if split == "train" else scenes[first:]:
                self.sequences[f"{dataset.name}/{scene.name}"] = scene
        if not self.sequences:
            raise ValueError(f"folder={folder} has no scenes for split={split}")
        self.sequence_list = list(self.sequences)

    def get_data(self, seq_index=None, img_per_seq=None, seq_name=None, ids=None, aspect_ratio=1.0):
        if seq_name is None:
            count = len(self.sequence_list)
            seq_name = self.sequence_list[random.randrange(count) if self.inside_random else seq_index % count]
        views = self.sequences[seq_name].views
        if ids is None:
            pick = random.choices if self.allow_duplicate_img else random.sample
            ids = np.array(pick(range(len(views)), k=img_per_seq))
        if self.get_nearby:
            ids = self.get_nearby_ids(ids, len(views))
        shape = self.get_target_shape(aspect_ratio)
        batch = {"seq_name": f"megasynth_{seq_name}", "ids": ids, "frame_num": len(ids)}
        made = ("images", "depths", "extrinsics", "intrinsics", "world_points", "cam_points", "point_masks")
        batch |= {key: [] for key in (*made, "original_sizes")}
        for index in ids:
            view = views[index]
            size = np.array([view.height_px, view.width_px])
            intrinsics = view.intrinsics.copy()
            intrinsics[:2, 2] += PIXEL_CENTRE - 0.5
            *arrays, _ = self.process_one_image(
                view.rgb,
                view.depth_z,
                view.camera_from_world[:3],
                intrinsics,
                size,
                shape,
                filepath=str(view.file("rgb")),
            )
            for key, array in zip(made, arrays, strict=True):
                batch[key].append(array)
            batch["original_sizes"].append(size)
        return batch
