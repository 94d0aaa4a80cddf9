"""The ray-cast dataset in the layouts of other programs, written here in their exact form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from megasynth_attr.core.ranges import Uniform
from megasynth_attr.dataset.export.__main__ import Options, export_dataset
from megasynth_attr.dataset.images import write_exr, write_png
from megasynth_attr.dataset.reader import SceneData, open_dataset
from megasynth_train.data.sources import open_sources
from megasynth_train.training.settings import DataSettings


def scenes_of(ours: Path) -> tuple[SceneData, ...]:
    """Return the scenes of the ray-cast dataset."""
    return open_dataset(ours).scenes


def on_white(view) -> Image.Image:
    """Return a view's picture without transparency."""
    image = Image.new("RGB", (view.width_px, view.height_px), "white")
    image.paste(view.picture, mask=view.picture.getchannel("A"))
    return image


def write_clearpose(root: Path, ours: Path, intrinsics_key: str = "intrinsic_matrix") -> Path:
    """Write the scenes as set1/scene1, set1/scene2, …: every view is a hundredth frame, and the next one as well."""
    for number, scene in enumerate(scenes_of(ours), 1):
        folder = root / "set1" / f"scene{number}"
        folder.mkdir(parents=True)
        frames = {}
        for view in scene.views:
            for frame in (f"{100 * view.index:06d}", f"{100 * view.index + 1:06d}"):
                on_white(view).save(folder / f"{frame}-color.png")
                write_png(folder / f"{frame}-depth_true.png", np.rint(view.depth_z * 1000).astype(np.uint16))
                write_png(folder / f"{frame}-depth.png", np.full(view.depth_z.shape, 77, np.uint16))  # of the sensor
                frames[frame] = {
                    "cls_indexes": np.array([[1], [2]]),
                    intrinsics_key: view.intrinsics,
                    "rotation_translation_matrix": np.linalg.inv(view.camera_from_world)[:3],
                    "factor_depth": 1000,
                }
        savemat(folder / "metadata.mat", frames)
    return root


def write_scannet(root: Path, ours: Path, depth_stride: int = 1) -> Path:
    """Write the scenes as root/<scene>: natural numbers as names, the second pose lost, every n-th depth pixel."""
    for scene in scenes_of(ours):
        folder = root / scene.name
        for name in ("color", "depth", "pose", "intrinsic"):
            (folder / name).mkdir(parents=True)
        for view in scene.views:
            number = 5 * view.index  # 0, 5, 10, …: sorted as text, 10 comes before 5
            on_white(view).save(folder / f"color/{number}.jpg", quality=100, subsampling=0)
            depth = np.rint(view.depth_z * 1000).astype(np.uint16)
            write_png(folder / f"depth/{number}.png", depth[::depth_stride, ::depth_stride])
            pose = np.linalg.inv(view.camera_from_world) if view.index != 1 else np.full((4, 4), -np.inf)
            np.savetxt(folder / f"pose/{number}.txt", pose)
        colour = np.eye(4)
        colour[:3, :3] = scene.views[0].intrinsics
        np.savetxt(folder / "intrinsic/intrinsic_color.txt", colour)
        # pixel i of depth is pixel stride * i of colour: its centre stays where it is
        depth = colour.copy()
        depth[:2, :3] /= depth_stride
        depth[:2, 2] += 0.5 - 0.5 / depth_stride
        np.savetxt(folder / "intrinsic/intrinsic_depth.txt", depth)
    return root


def write_wai(root: Path, ours: Path, per_frame: bool = False) -> Path:
    """Write the scenes as root/<scene>, with the camera's numbers in the header, or in each frame: those count."""
    for scene in scenes_of(ours):
        folder = root / scene.name
        (folder / "images").mkdir(parents=True)
        (folder / "depth").mkdir()
        fx, fy, cx, cy = scene.views[0].pinhole
        camera = {"w": scene.views[0].width_px, "h": scene.views[0].height_px, "fl_x": fx, "fl_y": fy}
        camera |= {"cx": cx - 0.5, "cy": cy - 0.5}
        frames = []
        for view in scene.views:
            name = f"{view.index:06d}"
            on_white(view).save(folder / f"images/{name}.png")
            write_exr(folder / f"depth/{name}.exr", {"Z": view.depth_z})
            frames.append(
                {
                    "frame_name": name,
                    "file_path": f"images/{name}.png",
                    "image": f"images/{name}.png",
                    "rendered_depth": f"depth/{name}.exr",
                    "transform_matrix": np.linalg.inv(view.camera_from_world).tolist(),
                    **(camera if per_frame else {}),
                }
            )
        header = {key: value + 3 * per_frame for key, value in camera.items()}
        record = {
            "scene_name": scene.name,
            "dataset_name": "test",
            "version": "0.1",
            "shared_intrinsics": not per_frame,
            "camera_model": "PINHOLE",
            "camera_convention": "opencv",
            "scale_type": "metric",
            **header,
            "frames": frames,
            "scene_modalities": {},
            "frame_modalities": {
                "image": {"frame_key": "image", "format": "image"},
                "depth": {"frame_key": "rendered_depth", "format": "depth"},
            },
        }
        (folder / "scene_meta.json").write_text(json.dumps(record))
    return root


def write_colmap(root: Path, ours: Path, suffix: str, model: str = "PINHOLE") -> Path:
    """Write the scenes as root/<scene> by pycolmap, with depth maps; the files of the model are binary or text."""
    import pycolmap

    for scene in scenes_of(ours):
        folder = root / scene.name
        for name in ("images", "sparse/0", "depth" if suffix != ".geometric.bin" else "stereo/depth_maps"):
            (folder / name).mkdir(parents=True)
        view = scene.views[0]
        parameters = {
            "PINHOLE": view.pinhole,
            "SIMPLE_PINHOLE": view.pinhole[1:],
            "SIMPLE_RADIAL": (*view.pinhole[1:], 0.1),
            "OPENCV": (*view.pinhole, 0, 0, 0, 0),
            "OPENCV_FISHEYE": (*view.pinhole, 0, 0, 0, 0),
        }
        size = {"width": view.width_px, "height": view.height_px}
        camera = pycolmap.Camera(model=model, params=parameters[model], camera_id=3, **size)
        reconstruction = pycolmap.Reconstruction()
        reconstruction.add_camera_with_trivial_rig(camera)
        for view in reversed(scene.views):
            name = f"{view.index:04d}.png"
            pose = pycolmap.Rigid3d(view.camera_from_world[:3])
            image = pycolmap.Image(name=name, camera_id=3, image_id=100 - view.index)
            reconstruction.add_image_with_trivial_frame(image, pose)
            on_white(view).save(folder / "images" / name)
            _write_depth(folder, name, suffix, view.depth_z)
        on_white(view).save(folder / "images" / "unplaced.png")
        write = reconstruction.write_binary if suffix == ".exr" else reconstruction.write_text
        write(folder / "sparse/0")
    return root


def _write_depth(folder: Path, name: str, suffix: str, depth_z: np.ndarray) -> None:
    if suffix == ".geometric.bin":
        height, width = depth_z.shape
        content = f"{width}&{height}&1&".encode() + depth_z.astype("<f4").tobytes()
        (folder / "stereo/depth_maps" / (name + suffix)).write_bytes(content)
    elif suffix == ".exr":
        write_exr(folder / "depth" / (name + suffix), {"R": depth_z, "G": depth_z, "B": depth_z})
    elif suffix == ".npy":
        np.save(folder / "depth" / Path(name).with_suffix(suffix), depth_z)
    else:
        write_png(folder / "depth" / name, np.rint(depth_z * 1000).astype(np.uint16))


SHORT = DataSettings(views=Uniform(2, 6), validation_share=0)
WRITERS = {
    "nerfstudio": lambda out, ours: exported("nerfstudio", ours, out),
    "colmap-exr": lambda out, ours: write_colmap(out, ours, ".exr"),
    "colmap-npy": lambda out, ours: write_colmap(out, ours, ".npy", "SIMPLE_PINHOLE"),
    "colmap-dense": lambda out, ours: write_colmap(out, ours, ".geometric.bin"),
    "wai": write_wai,
    "wai-frames": lambda out, ours: write_wai(out, ours, per_frame=True),
    "scannet": write_scannet,
    "clearpose": write_clearpose,
    "clearpose-page": lambda out, ours: write_clearpose(out, ours, "camera_intrinsics"),
}


def exported(format: str, ours: Path, out: Path) -> Path:
    export_dataset(Options(format, str(ours), str(out)), progress=False)
    return out


def opened(*sources, **changes):
    return open_sources(replace(SHORT, sources=tuple(map(str, sources)), **changes))


def edit(file: Path, change) -> None:
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def scale_rotation(pose: list, factor: float) -> None:
    for row in pose[:3]:
        row[:3] = [factor * value for value in row[:3]]
