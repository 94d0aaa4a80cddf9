"""Writing scenes: frames are encoded while the next one renders, and a scene appears as a whole or not at all."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from megasynth_attr.core.errors import RenderError
from megasynth_attr.core.files import json_bytes, storage_errors
from megasynth_attr.core.temporary import new_temporary_folder, publish, remove_temporary_folder
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.archive import in_order
from megasynth_attr.dataset.conventions import CAMERA_CONVENTIONS, CAMERAS_FORMAT, CHECKSUMS_FORMAT, RENDER_FORMAT
from megasynth_attr.dataset.images import depth_bytes, png_bytes, vector_bytes
from megasynth_attr.dataset.record import finalise, open_for_writing
from megasynth_attr.dataset.scene_files import new_scene
from megasynth_attr.scene.frame import Frame, camera_from_world, intrinsics
from megasynth_attr.scene.settings import WriteSettings
from megasynth_attr.scene.spec import Camera, Scene, scene_to_json

__all__ = ["SceneWriter", "finalise", "open_for_writing"]

FRAMES_IN_FLIGHT = 2  # bounds memory: one frame being encoded, one waiting
ARRAYS: dict[str, tuple[str, str, tuple[int, ...]]] = {  # layer → attribute of the frame, type, channels
    "rgb": ("rgba", "uint8", (4,)),
    "depth": ("depth_z", "float32", ()),
    "normal": ("normal", "float32", (3,)),
    "instance": ("instance", "uint16", ()),
    "position": ("position", "float32", (3,)),
}
FLOAT16_MAX = float(np.finfo(np.float16).max)


class SceneWriter:
    """Writes one scene into a temporary folder; ``commit`` gives it its final name, as a folder or as an archive.

    ::

        with SceneWriter(dataset, scene, 518, 518, write, render_record) as writer:
            for i in range(frames):
                writer.write_frame(i, render_view(stage, i))
            writer.commit()

    Encoding runs in one background thread; its errors surface at the next call. Leaving the block without a commit
    removes the temporary folder. Raises RenderError for a frame that cannot be used, EnvironmentProblem for a full or
    read-only disk.
    """

    def __init__(
        self,
        dataset_dir: Path,
        scene: Scene,
        width_px: int,
        height_px: int,
        write: WriteSettings,
        render_record: Mapping[str, Any],
    ) -> None:
        self.dataset_dir = Path(dataset_dir)
        self.scene = scene
        self.size = (height_px, width_px)
        self.write = write
        self.render_record = dict(render_record)
        self.camera: Camera = scene.factors["camera"]
        self.layers = paths.written_layers(asdict(write))
        self._digests: dict[str, dict[str, Any]] = {}
        self._pending: deque[Future[None]] = deque()
        self._folder: Path | None = None
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")

    def __enter__(self) -> SceneWriter:
        index = self.scene.scene_index
        names = [paths.layer_file(layer, i) for layer in self.layers for i in range(len(self.camera.positions))]
        self._folder = new_temporary_folder(self.dataset_dir / paths.TMP, paths.scene_name(index))
        with storage_errors("a scene", self._folder):
            self._files = new_scene(self._folder, index, names, self.write.pack)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._encoder.shutdown(wait=True, cancel_futures=True)
        if self._folder is not None:
            self._files.close()
            remove_temporary_folder(self._folder)
            self._folder = None

    def write_frame(self, index: int, frame: Frame) -> None:
        """Check ``frame`` and hand it to the encoder; raises what went wrong with it or with an earlier frame."""
        if not 0 <= index < len(self.camera.positions):
            raise ValueError(f"frame {index} of {self.scene.name}: the camera has {len(self.camera.positions)} poses")
        self._check(index, frame)
        self._wait(FRAMES_IN_FLIGHT - 1)
        self._pending.append(self._encoder.submit(self._encode, index, frame))

    def commit(self) -> Path:
        """Return the scene's final folder or archive, complete and on disk.

        One that already exists is left as it is: scenes are deterministic, so it holds the same bytes.
        """
        self._wait(0)
        folder = self._open_folder()
        count = len(self.camera.positions)
        missing = [i for i in range(count) if paths.layer_file("rgb", i) not in self._digests]
        if missing:
            raise RenderError(
                f"{self.scene.name}: {len(missing)} of {count} frames were not rendered, e.g. {missing[0]}"
            )
        index = self.scene.scene_index
        final = paths.scene_path(self.dataset_dir, index)
        if not paths.is_finished(self.dataset_dir, index):
            final = (paths.archive_file if self.write.pack == "tar" else paths.scene_dir)(self.dataset_dir, index)
            with storage_errors(f"scene {self.scene.name}", final):
                self._write_records()
                publish(self._files.finish(), final)
        self._files.close()
        remove_temporary_folder(folder)
        self._folder = None
        return final

    def _open_folder(self) -> Path:
        if self._folder is None:
            raise RuntimeError("SceneWriter is used outside its `with` block, or after commit()")
        return self._folder

    def _wait(self, allowed: int) -> None:
        """Wait until at most ``allowed`` frames are pending; raise the first error."""
        while len(self._pending) > allowed or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()

    def _encode(self, index: int, frame: Frame) -> None:
        layers = {paths.layer_file(layer, index): layer for layer in self.layers}
        for name in in_order(layers):
            content = self._encoded(layers[name], getattr(frame, ARRAYS[layers[name]][0]))
            with storage_errors("an image", self._open_folder() / name):
                self._add(name, content)

    def _encoded(self, layer: str, array: np.ndarray) -> bytes:
        if layer in ("rgb", "instance"):
            return png_bytes(array)
        if layer == "depth":
            return depth_bytes(array, self.write.depth)
        return vector_bytes(array, "float16" if layer == "normal" else "float32")

    def _add(self, name: str, content: bytes) -> None:
        self._files.add(name, content)
        self._digests[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def _write_records(self) -> None:
        height, width = self.size
        cameras = {
            "format": CAMERAS_FORMAT,
            "width_px": width,
            "height_px": height,
            "fov_x_deg": self.camera.fov_x_deg,
            "intrinsics": intrinsics(self.camera.fov_x_deg, width, height).tolist(),
            "camera_from_world": camera_from_world(self.camera).tolist(),
            "conventions": CAMERA_CONVENTIONS,
        }
        contents = {
            paths.SCENE_FILE: scene_to_json(self.scene).encode(),
            paths.CAMERAS_FILE: json_bytes(cameras),
            paths.RENDER_FILE: json_bytes({"format": RENDER_FORMAT} | self.render_record),
        }
        for name in in_order(contents):
            self._add(name, contents[name])
        checksums = {"format": CHECKSUMS_FORMAT, "files": self._digests}
        self._files.add(paths.CHECKSUMS_FILE, json_bytes(checksums))

    def _check(self, index: int, frame: Frame) -> None:
        """Raise RenderError if an array is absent, has another shape or type, or holds impossible values."""
        where = f"{self.scene.name} frame {index}"
        for layer in self.layers:
            name, kind, channels = ARRAYS[layer]
            array, shape = getattr(frame, name), (*self.size, *channels)
            found = None if array is None else (array.shape, array.dtype.name)
            if found != (shape, kind):
                raise RenderError(f"{where}: {name} should be {kind} of shape {shape}, it is {found}")
            if bad := np.count_nonzero(~np.isfinite(array)):
                raise RenderError(f"{where}: {name} has {bad} values that are not finite")
        if frame.depth_z.min() < 0:
            raise RenderError(f"{where}: depth has negative values, the smallest {frame.depth_z.min():g}")
        if self.write.depth == "float16" and frame.depth_z.max() > FLOAT16_MAX:
            raise RenderError(
                f"{where}: depth up to {frame.depth_z.max():g} does not fit float16; use write.depth=float32"
            )
