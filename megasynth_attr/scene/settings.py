"""Every setting that belongs to no factor, declared once: default, meaning, limits. Factors declare their own."""

from __future__ import annotations

from dataclasses import dataclass

from megasynth_attr.core.fields import setting
from megasynth_attr.core.streams import Scope


@dataclass(frozen=True)
class RenderSettings:
    """How frames are rendered; part of the dataset's identity."""

    width_px: int = setting(518, "image width", minimum=8, maximum=8192)
    height_px: int = setting(518, "image height", minimum=8, maximum=8192)
    exposure_stops: float = setting(0.0, "fixed exposure: linear colour times 2^stops", minimum=-10, maximum=10)
    samples: int = setting(0, "Cycles samples per pixel; 0: set by quality", minimum=0, maximum=65536)
    denoiser: str = setting(
        "best",
        "best: OpenImageDenoise if Blender has it, else none with a warning; oidn: fail without it; none: off",
        options=["best", "oidn", "none"],
    )
    max_bounces: int = setting(6, "light path length", minimum=0, maximum=64)
    texture_filter: str = setting(
        "linear",
        "linear: textures at full resolution; mip: as coarse as a pixel allows (Blender 5.2 or newer; other pictures)",
        options=["linear", "mip"],
        added=True,
    )
    denoiser_device: str = setting(
        "cpu", "where to denoise; gpu: on the GPU of device=, or fail", options=["cpu", "gpu"], added=True
    )


@dataclass(frozen=True)
class WriteSettings:
    """What is written per frame, besides RGB and depth; part of the dataset's identity."""

    depth: str = setting("float32", "depth precision on disk", options=["float32", "float16"])
    normal: bool = setting(False, "write world-space normals (EXR, 3 channels)")
    instance: bool = setting(False, "write instance ids (16-bit PNG)")
    position: bool = setting(False, "write world-space positions (EXR, 3 channels)")
    pack: str = setting(
        "folder",
        "a scene is a folder, or one tar file with the same files in it, read without unpacking",
        options=["folder", "tar"],
        identity=False,
        added=True,
    )


@dataclass(frozen=True)
class IsolationSettings:
    """How the isolation matrix is measured."""

    reference: str = setting("everything", "preset whose spread counts as full variation (value 1)", path="file")
    scenes: int = setting(12, "scenes drawn per measurement", minimum=2, maximum=1000)


@dataclass(frozen=True)
class ContentSettings:
    """What the datasets contain."""

    preset: str = setting("demo", "name of a file in presets/, or a path to a YAML file", identity=False, path="file")
    members: tuple[str, ...] = setting(
        (), "presets that together make one experiment, one attribute each", identity=False, path="file"
    )
    plugins: tuple[str, ...] = setting(
        (), "Python files or modules that declare further factors; no file may name them", identity=False, path="file"
    )
    downstream: str = setting(
        "",
        "preset of the data on which adaptation is compared: its last dataset is for testing, the others for training; "
        "or downstream.thuman=FOLDER and downstream.twok2k=FOLDER with the meshes (trained on the first, tested on "
        "both), or downstream.clearpose=FOLDER",
        identity=False,
        path="file",
    )
    downstream_count: int = setting(2, "datasets of the downstream preset", minimum=2, maximum=100, identity=False)
    attribute: str = setting("", "name of the attribute that varies; also the name of the dataset folders")
    seed: int = setting(0, "root seed; all randomness follows from it", minimum=0)
    dataset_count: int = setting(10, "datasets per attribute", minimum=1, maximum=100_000, identity=False)
    scene_count: int = setting(200, "scenes per dataset", minimum=1, maximum=1_000_000, identity=False)
    frames: int = setting(100, "frames (views) per scene", minimum=1, maximum=10_000)
    quality: str = setting("default", "sampling quality", options=["draft", "default", "reference"])
    training_layout: bool = setting(True, "require image sizes that are multiples of 14 px")
    noise_scope: str = setting("experiment", "how often Cycles' seed is drawn anew", options=[s.value for s in Scope])


@dataclass(frozen=True)
class RunSettings:
    """How and where a run works. None of these changes a byte of the data."""

    out: str = setting("", "output folder; empty: runs/<preset> below the current folder", path="folder")
    cache: str = setting("", "folder where procedural materials are kept once made; empty: <out>/cache", path="folder")
    datasets: str = setting("all", "which datasets of each member: all, 0-4, 0,3,7 (of downstream always all)")
    scenes: str = setting("all", "which scenes of each: all, 0-99, 3,7,9")
    shard: str = setting("1/1", "this machine's share of the selected scenes, i/n, counted from 1")
    stages: str = setting(
        "generate,verify,report", "stages to run, of generate, verify, pretrain, cluster, mine, compare, report"
    )
    from_stage: str = setting("", "skip the stages before this one", short="from")
    plan: bool = setting(False, "only print what the chosen stages would cost; nothing is written")
    executor: str = setting("local", "who renders", options=["local", "slurm"])
    blender: str = setting("auto", "auto, module (pip install bpy), or the path of a Blender binary", path="file")
    device: str = setting(
        "cpu",
        "Cycles device; a GPU that is not there is an error",
        options=["cpu", "cuda", "optix", "hip", "oneapi", "metal"],
    )
    workers: int = setting(0, "Blender processes at once; 0: from cores, scenes, memory", minimum=0, maximum=1024)
    threads: int = setting(0, "threads of one Blender process; 0: two where possible", minimum=0, maximum=1024)
    scenes_per_worker: int = setting(50, "a worker is replaced after this many scenes", minimum=1)
    attempts: int = setting(
        2, "tries per scene, with the same seed, before a failure is recorded", minimum=1, maximum=10
    )
    timeout_s: float = setting(3600.0, "longest time for one scene", minimum=1, short="timeout")
    max_runtime_s: float = setting(
        0.0, "stop taking scenes after this time and exit 75; 0: no limit", minimum=0, short="max_runtime"
    )
    openjd_progress: bool = setting(False, "also print openjd_progress lines")
    jobs: int = setting(0, "slurm: number of jobs; 0: one per 10 scenes, at most 1000", minimum=0)
    partition: str = setting("", "slurm: partition; empty: the cluster's default")
    slurm_minutes: int = setting(1440, "slurm: time limit of one job", minimum=1)
    detach: bool = setting(
        False, "slurm: submit the jobs and return at once; the same command without it waits for them"
    )
