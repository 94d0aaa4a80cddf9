"""The shape and pose of a body: Anny's mesh (MakeHuman's CC0 data) with drawn phenotype and joint angles.

Frame: metres, z up, the body faces -y, its left is +x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from megasynth_attr.core.errors import importing

# what is drawn uniformly, between 0 and 1: adults of all builds
_PHENOTYPE = {
    "gender": (0.0, 1.0),
    "age": (0.6, 0.95),
    "muscle": (0.3, 0.8),
    "weight": (0.25, 0.8),
    "height": (0.25, 0.75),
    "proportions": (0.3, 0.9),
}
# degrees about x (negative bends a limb forwards, positive bends the knee), y (negative lifts the left limb sideways)
# and z, for the left side; the right side is its mirror image. Within these ranges limbs do not enter the body.
_LIMBS = {
    "upperarm01": ((-45, 20), (-45, 28), (-10, 10)),
    "lowerarm01": ((-75, -5), (0, 0), (0, 0)),
    "upperleg01": ((-35, 15), (-16, 0), (-10, 10)),
    "lowerleg01": ((2, 40), (0, 0), (0, 0)),
}
_TRUNK = {
    "spine03": ((-4, 8), (-6, 6), (-10, 10)),
    "spine01": ((-4, 8), (-6, 6), (-10, 10)),
    "neck01": ((-6, 8), (-6, 6), (-18, 18)),
    "head": ((-6, 8), (-6, 6), (-15, 15)),
}
_MIRROR = np.array([1.0, -1.0, -1.0])  # of a rotation vector, at the plane x = 0


@dataclass(frozen=True)
class Body:
    """A triangle mesh of V vertices and F faces; ``uv`` has T rows, because a seam's vertices have several."""

    vertices: np.ndarray  # V×3, metres
    rest: np.ndarray  # V×3: the same shape in the pose with arms and legs apart, in which regions are told
    faces: np.ndarray  # F×3 into vertices, anticlockwise from outside; two in a row are the halves of a quad
    uv: np.ndarray  # T×2, the origin is the lower left corner of the texture
    face_uv: np.ndarray  # F×3 into uv
    bones: np.ndarray  # F: the number of the bone that moves a face most
    bone_names: tuple[str, ...]
    eye: np.ndarray  # 3: the left eye's centre in ``rest``

    def face_of(self, names: Sequence[str]) -> np.ndarray:
        """Return which faces are moved most by a bone whose name begins with one of ``names``, F bools."""
        chosen = [i for i, bone in enumerate(self.bone_names) if bone.startswith(tuple(names))]
        return np.isin(self.bones, chosen)


class BodyModel:
    """Anny's model in memory. Its first use on a machine takes some minutes: it unpacks its data into a cache."""

    def __init__(self) -> None:
        """EnvironmentProblem if the package is not installed."""
        with importing(
            "bodies need anny, which cannot be imported ({error}); install it with: pip install "
            "'megasynth-attr[humans]'"
        ):
            import anny
        self._model: Any = anny.Anny(skinning_method="lbs").to(torch.float64)
        self._names: tuple[str, ...] = tuple(self._model.bone_labels)

    @cached_property
    def _bones_of_faces(self) -> np.ndarray:
        weights = np.zeros((len(self._model.template_vertices), len(self._names)))
        indices, values = (x.numpy() for x in (self._model.vertex_bone_indices, self._model.vertex_bone_weights))
        np.put_along_axis(weights, indices, 0.0, axis=1)
        np.add.at(weights, (np.arange(len(weights))[:, None], indices), values)
        of_quads = weights[self._model.faces.numpy()].sum(axis=1).reshape(-1, 2, len(self._names)).sum(axis=1)
        return np.asarray(of_quads.argmax(axis=1).repeat(2))

    def draw(self, rng: np.random.Generator) -> Body:
        """Return a body whose shape and pose are drawn from ``rng``, always the same numbers in the same order."""
        phenotype = {name: rng.uniform(low, high) for name, (low, high) in _PHENOTYPE.items()}
        turns: dict[str, np.ndarray] = {}
        for side, mirror in (("L", np.ones(3)), ("R", _MIRROR)):
            turns |= {f"{name}.{side}": mirror * _drawn(rng, ranges) for name, ranges in _LIMBS.items()}
        turns |= {name: _drawn(rng, ranges) for name, ranges in _TRUNK.items()}
        pose = torch.eye(4, dtype=torch.float64).repeat(1, len(self._names), 1, 1)
        for name, turn in turns.items():
            pose[0, self._names.index(name), :3, :3] = torch.from_numpy(Rotation.from_rotvec(turn).as_matrix())
        with torch.inference_mode():
            answer = self._model(pose_parameters=pose, phenotype_kwargs=phenotype)
        vertices, rest, heads = (answer[key][0].numpy() for key in ("vertices", "rest_vertices", "rest_bone_heads"))
        return Body(
            vertices=vertices,
            rest=rest,
            faces=self._model.faces.numpy(),
            uv=self._model.texture_coordinates.numpy(),
            face_uv=self._model.face_texture_coordinate_indices.numpy(),
            bones=self._bones_of_faces,
            bone_names=self._names,
            eye=heads[self._names.index("eye.L")],
        )


def _drawn(rng: np.random.Generator, ranges: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return a rotation vector, radians, uniform in ``ranges`` of degrees about x, y and z."""
    return np.radians([rng.uniform(low, high) for low, high in ranges])
