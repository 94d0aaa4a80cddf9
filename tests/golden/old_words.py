"""The command lines that wrote tests/fixtures/v0_1, relative to the folder they were given in."""

from __future__ import annotations

DATA = (
    "preset=texture",
    "dataset_count=2",
    "scene_count=2",
    "frames=2",
    "quality=draft",
    "render.width_px=28",
    "render.height_px=28",
    "texture.bank_size_px=16",
    "write.normal=true",
    "write.instance=true",
    "isolation.scenes=2",
    "out=data",
)
FIRST_SCENES = (*DATA, "scenes=0", "stages=generate,verify")

TARGETS = (
    r"adapter.targets=aggregator\.(frame|global)_blocks\.1\.(attn\.qkv|mlp\.fc2)"
    r"|camera_head\.pose_branch\.fc2|depth_head\.scratch\.output_conv2\.0"
)
TRAINING = (
    "model=vggt-tiny",
    "checkpoint=shipped:vggt-tiny",
    TARGETS,
    "rank=1",
    "adapter.head_rank=1",
    "data.width_px=28",
    "data.views=2",
    "data.images_per_step=2",
    "lr=1e-2",
    "optim.warmup=0",
    "workers=0",
    "device=cpu",
    "run.threads=1",
    "run.progress=false",
    "run.log_every=1",
)
# of the two scenes one trains and one validates
RUN = (
    *TRAINING,
    "data=data/texture_00",
    "data=data/texture_01",
    "data.validation_share=0.55",
    "steps=12",
    "run.checkpoint_every=3",
    "run.validate_every=4",
    "run.validation_steps=1",
    "run.keep=1",
)
UNFINISHED = (*RUN, "out=runs/unfinished")
FINISHED = (*RUN, "out=runs/finished")  # what the unfinished one becomes
BRIEF = (*TRAINING, "data=data/texture_00", "data.validation_share=0", "steps=2", "run.validate_every=0", "run.keep=1")
MODES = ("rslora", "dora", "pissa", "adalora", "lora_xs", "heads", "subspace")
CLUSTER = (*TRAINING, "experiment=data", "data.validation_share=0", "steps=2", "run.validate_every=0", "out=cluster")
MINE = (
    "cluster=cluster",
    "dimension=1",
    "mining.null_draws=2",
    "mining.splits=1",
    "workers=1",
    "run.figures=false",
    "run.progress=false",
)
SUBSPACES = (*MINE, "out=subspaces")
HALF_MINED = (*MINE, "out=half_mined")
RANDOM_BASIS = ("random=subspaces/all.safetensors", "seed=3", "out=basis/random.safetensors")
COMPARE = (
    *TRAINING,
    "data=data/texture_00",
    "test=data/texture_01",
    "basis=subspaces",
    "data.validation_share=0",
    "steps=2",
    "run.validate_every=0",
    "run.keep=1",
    "methods=[base,lora-1,subspace,random]",
    "seeds=[0]",
    "test.width_px=28",
    "test.views=2",
    "test.max_points=100",
    "test.pictures=false",
    "test.page=false",
    "test.icp_distance=1",
    "out=comparison",
)


def mode(name: str) -> tuple[str, ...]:
    """Return a brief run that trains one kind of adapter."""
    basis = ("basis=subspaces/all.safetensors",) if name == "subspace" else ()
    given = {word.partition("=")[0]: word for word in (*BRIEF, f"mode={name}", *basis, f"out=runs/{name}")}
    return tuple(given.values())


def evaluate(adapter: str) -> tuple[str, ...]:
    """Return the measurement of one adapter on the second dataset; "": of the base model."""
    return (
        "model=vggt-tiny",
        "checkpoint=shipped:vggt-tiny",
        "data=data/texture_01",
        "views=2",
        "width_px=28",
        "max_points=100",
        "icp_distance=1",
        "pictures=false",
        "page=false",
        "progress=false",
        "device=cpu",
        "threads=1",
        f"adapter={adapter}",
        f"out=evaluation/{adapter or 'base'}",
        *(("basis=subspaces/all.safetensors",) if "subspace" in adapter else ()),
    )
