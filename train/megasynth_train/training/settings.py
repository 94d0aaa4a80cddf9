"""Every key of a training run: default, meaning, limits; declared once for checks, ``--help`` and the record."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from typing import Any

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import range_setting, setting, span
from megasynth_attr.core.ranges import Range, Uniform
from megasynth_train.data.layouts.names import FORMATS
from megasynth_train.vggt.config import ATTENTION, ATTENTION_KERNELS, EVERYTHING, NOTHING, SIZES

SUBSPACE_KEYS = ("basis", "attributes", "mask", "basis_norm", "m_init", "scale")  # only for mode=subspace
TWO_ADAPTERS = ("pissa", "adalora", "lora_xs")  # the method's own on the aggregator, plain LoRA on the heads
OWN_HEADS = (*TWO_ADAPTERS, "subspace")  # rank is not the rank of the heads
DEFAULT_HEAD_RANK = 16
# full saves the frozen weights too, which must stay float32; DoRA uses the norms of the base weight itself
NEED_FLOAT32_WEIGHTS = ("full", "dora")


def format_setting() -> Any:
    """Return the field that names the layout of the data."""
    return setting(
        "auto", "layout of the folders; auto: the one they are found to have", options=FORMATS, identity=False
    )


def depth_unit_setting() -> Any:
    """Return the field for the unit of depth files, which not every layout knows."""
    return setting(
        0.0,
        "other layouts than ours: scene units per number in a depth file, e.g. 0.001 for millimetres; 0: as the "
        "layout says",
        minimum=0,
        added=True,
    )


def scaled_rotation_setting() -> Any:
    """Return the field that accepts poses with a scale."""
    return setting(
        False, "other layouts than ours: divide the scale out of rotations instead of refusing them", added=True
    )


@dataclass(frozen=True)
class ModelSettings:
    """The base model."""

    size: str = setting("vggt-1b", "width and depth of the model", options=list(SIZES), short="model")
    checkpoint: str = setting(
        "",
        "weights: a file, a folder, a hub id such as facebook/VGGT-1B, or shipped:vggt-tiny; empty: random",
        short="checkpoint",
        identity=False,
    )
    seed: int = setting(0, "seed of random base weights (checkpoint empty)", minimum=0, identity=False)
    precision: str = setting(
        "auto",
        "arithmetic of encoder and aggregator; heads and losses are fp32; auto: bf16 on CUDA, fp32 elsewhere",
        options=["auto", "fp32", "bf16"],
    )
    gradient_checkpointing: bool = setting(
        False, "recompute blocks and depth head in the backward pass: less memory, slower", identity=False
    )
    compile: bool = setting(False, "compile blocks and heads with torch.compile", identity=False)
    attention: str = setting(
        "auto",
        "attention kernel of encoder and aggregator; sdpa: PyTorch's choice; auto: fa4 or fa3 where installed and the "
        "card has it, else sdpa",
        options=list(ATTENTION_KERNELS),
        identity=False,
    )
    depth_head: str = setting(
        "auto",
        "arithmetic of the depth head; auto: as model.precision on CUDA, else fp32",
        options=["auto", "fp32", "bf16"],
        added=True,
    )
    frozen: str = setting(
        "bf16",
        "under model.precision=bf16: arithmetic of products with frozen weights; fp8 is faster and rounds more",
        options=["bf16", "fp8"],
        added=True,
    )
    keep: str = setting(
        NOTHING,
        "model.gradient_checkpointing=true: what blocks keep all the same: nothing, or the results of attention, which "
        "costs most to recompute",
        options=[NOTHING, ATTENTION],
        identity=False,
    )

    def settled(self, named: Collection[str], prefix: str) -> ModelSettings:
        """Return the settings as they are; ConfigError for a key that would do nothing."""
        if self.keep == ATTENTION and not self.gradient_checkpointing:
            raise ConfigError(
                f"{prefix}keep={ATTENTION} changes what is recomputed, but nothing is: add "
                f"{prefix}gradient_checkpointing=true"
            )
        return self

    @property
    def kept(self) -> str:
        """Return what blocks keep for the backward pass, one of KEPT."""
        return self.keep if self.gradient_checkpointing else EVERYTHING

    def keeping(self, kept: str) -> ModelSettings:
        """Return these settings with ``kept``, one of KEPT."""
        if kept == EVERYTHING:
            return replace(self, gradient_checkpointing=False, keep=NOTHING)
        return replace(self, gradient_checkpointing=True, keep=kept)

    def kept_words(self) -> list[str]:
        """Return the words of the command line that say what blocks keep; none for everything."""
        words = {ATTENTION: [f"model.keep={ATTENTION}"], NOTHING: []}
        return [] if self.kept == EVERYTHING else ["model.gradient_checkpointing=true", *words[self.kept]]


@dataclass(frozen=True)
class DataSettings:
    """What is read and how it is sampled and augmented."""

    sources: tuple[str, ...] = setting(
        (),
        "folders: datasets, experiments, or scenes in another layout (docs/own-data.md)",
        short="data",
        literal=True,
        identity=False,
    )
    format: str = format_setting()
    depth_unit: float = depth_unit_setting()
    scaled_rotation: bool = scaled_rotation_setting()
    scenes: str = setting("all", "scenes of each source by number: all, 0-9, 0,3,7")
    validation_share: float = setting(
        0.1, "share of scenes held out, chosen by the hash of the scene", minimum=0, maximum=0.9
    )
    images_per_step: int = setting(32, "upper limit of images per step and process", minimum=1)
    scenes_at_once: int = setting(
        0,
        "scenes that go through the model at a time, to save memory; the step stays one step. 0: all; otherwise each "
        "piece of a step has a loss.quantile of its own",
        minimum=0,
        added=True,
    )
    views: Range[int] = range_setting(Uniform(4, 16), "views per scene, drawn for each step", minimum=1)
    view_stride: int = setting(1, "use every n-th view of a scene only", minimum=1)
    duplicate_views: bool = setting(False, "draw views with replacement, as the released code does")
    view_order: str = setting(
        "random",
        "order of the drawn views, the first of which is the reference: random (as released), or along the camera's "
        "path",
        options=["random", "path"],
    )
    width_px: int = setting(
        0, "width of the network's input, a multiple of 14; 0: the model's own (518, 224 or 126)", minimum=0
    )
    pixel_centre: float = setting(
        0.5,
        "coordinate of the first pixel's centre when depth becomes points: 0.5, or 0 as in the released code",
        minimum=0,
        maximum=0.5,
    )
    aspect: Range[float] = span(
        1.0, 1.0, "height / width, drawn for each step; released: [0.33,1]", minimum=0.1, maximum=3
    )
    augment: bool = setting(True, "random crops, zooms and colour jitter in training")
    crop: Range[float] = span(0.8, 1.2, "size of the crop relative to the image, capped at 1", minimum=0.1, maximum=4)
    zoom: float = setting(
        0.3, "largest additional random zoom, relative to the width (triangular distribution)", minimum=0, maximum=2
    )
    brightness: float = setting(0.5, "colour jitter: factor in 1 ± this", minimum=0, maximum=1)
    contrast: float = setting(0.5, "colour jitter: factor in 1 ± this", minimum=0, maximum=1)
    saturation: float = setting(0.5, "colour jitter: factor in 1 ± this", minimum=0, maximum=1)
    hue: float = setting(0.1, "colour jitter: hue shift in ± this, in full turns", minimum=0, maximum=0.5)
    jitter_share: float = setting(0.9, "probability of colour jitter", minimum=0, maximum=1)
    grey_share: float = setting(0.05, "probability of a grey image", minimum=0, maximum=1)
    shared_jitter: float = setting(
        0.3, "probability that all views of a scene share one colour jitter; released: 0.7", minimum=0, maximum=1
    )
    depth_quantile: float = setting(
        1.0, "valid depth above this quantile of a frame's valid depth is ignored; released: 0.98", minimum=0, maximum=1
    )
    on_bad_file: str = setting(
        "stop",
        "if a file cannot be read: stop the run, or skip its scene, which is replaced and counted",
        options=["stop", "skip"],
        identity=False,
    )
    max_bad_share: float = setting(
        0.05,
        "on_bad_file=skip: largest share of reads that may fail before the run stops",
        minimum=0,
        maximum=1,
        identity=False,
    )
    workers: int = setting(
        4,
        "loader processes (they only decode); 0: load in the training process",
        minimum=0,
        short="workers",
        identity=False,
    )
    prefetch: int = setting(2, "steps each worker prepares in advance", minimum=1, identity=False)
    cache: str = setting(
        "",
        "folder that keeps decoded frames for later steps and runs, or /dev/shm (memory); empty: none",
        identity=False,
    )
    cache_gib: float = setting(
        16.0, "most that is kept in data.cache; a frame of 518 × 518 px takes 1.9 MB", minimum=0, identity=False
    )


@dataclass(frozen=True)
class LossSettings:
    """objective = camera × camera loss + depth × (confidence + regression + gradient)."""

    camera: float = setting(5.0, "weight of the camera loss", minimum=0)
    depth: float = setting(1.0, "weight of the three depth losses", minimum=0)
    gamma: float = setting(0.6, "weight of each earlier camera refinement relative to the next", minimum=0, maximum=1)
    alpha: float = setting(0.2, "weight of the log-confidence", minimum=0)
    quantile: float = setting(0.98, "residuals above this quantile are ignored; 1 keeps all", minimum=0, maximum=1)
    camera_valid: str = setting(
        "first_frame",
        "a scene counts in the camera loss if its first frame (released) or any frame has over 100 valid pixels",
        options=["first_frame", "any_frame"],
    )
    quaternion: str = setting(
        "raw",
        "compare quaternions as they are (released), or normalised and up to sign",
        options=["raw", "sign_invariant"],
    )


@dataclass(frozen=True)
class AdapterSettings:
    """What is trained."""

    mode: str = setting(
        "lora",
        "which parameters are trained and how",
        options=["full", "lora", "rslora", "dora", "pissa", "adalora", "lora_xs", "subspace", "heads"],
        short="mode",
    )
    rank: int = setting(16, "rank of the adapters (adalora: the average at the end)", minimum=1, short="rank")
    alpha: float = setting(
        0.0,
        "scale is alpha / rank (rslora: alpha / √rank; lora_xs, subspace: heads only); 0: alpha is twice the rank",
        minimum=0,
    )
    train_encoder: bool = setting(False, "mode=full: also train the image encoder, for training from scratch")
    targets: str = setting(
        "", "regular expression of adapted modules; empty: all linears and convolutions outside the encoder"
    )
    head_rank: int = setting(
        0, "rank of the plain LoRA on the heads; 0: as rank (lora_xs, pissa, adalora, subspace: 16)", minimum=0
    )
    seed: int = setting(0, "seed of the adapters' initial values", minimum=0)
    basis: str = setting(
        "",
        "mode=subspace: file of the basis A, B in which dW = scale · A M Bᵀ is trained",
        short="basis",
        identity=False,
    )
    attributes: tuple[str, ...] = setting(
        (), "mode=subspace: use only the basis columns of these attributes; empty: all", short="attributes"
    )
    mask: str = setting(
        "full",
        "mode=subspace: M is free, or 0 between the columns of different attributes",
        options=["full", "block_diagonal"],
    )
    basis_norm: str = setting(
        "orthonormal",
        "mode=subspace: the basis as it is, or every column times the square root of its singular value",
        options=["orthonormal", "sqrt_sigma"],
    )
    m_init: str = setting(
        "zeros",
        "mode=subspace: start of M: 0, which is the base model itself, or the mean of the cluster's adapters",
        options=["zeros", "mean"],
    )
    scale: float = setting(2.0, "mode=subspace: scale of dW = scale · A M Bᵀ", minimum=1e-6)


def head_rank(settings: AdapterSettings) -> int:
    """Return the rank of the heads' plain LoRA."""
    return settings.head_rank or (DEFAULT_HEAD_RANK if settings.mode in OWN_HEADS else settings.rank)


@dataclass(frozen=True)
class OptimSettings:
    """AdamW; warm-up from lr_start to lr, then a cosine to lr_end."""

    steps: int = setting(24_000, "optimiser steps", minimum=1, short="steps")
    lr: float = setting(1e-5, "largest learning rate", minimum=0, short="lr")
    lr_start: float = setting(1e-8, "learning rate of the first step", minimum=0)
    lr_end: float = setting(1e-8, "learning rate of the last step", minimum=0)
    warmup: float = setting(0.05, "share of the steps that warm up", minimum=0, maximum=1)
    weight_decay: float = setting(0.05, "decoupled weight decay of every trained parameter", minimum=0)
    beta1: float = setting(0.9, "AdamW", minimum=0, maximum=0.9999)
    beta2: float = setting(0.999, "AdamW", minimum=0, maximum=0.9999)
    eps: float = setting(1e-8, "AdamW", minimum=1e-20)
    clip: float = setting(
        0.5, "largest gradient 2-norm of each group (aggregator, camera head, depth head); 0: off", minimum=0
    )
    max_bad_steps: int = setting(
        20,
        "steps in a row with a non-finite loss or gradient that are skipped before stopping",
        minimum=0,
        identity=False,
    )


@dataclass(frozen=True)
class RunSettings:
    """Where and how training runs; of these, seed, device and validation_steps (the choice of best/) change results."""

    out: str = setting("", "output folder; running again resumes what is there", short="out", identity=False)
    seed: int = setting(0, "seed of sampling and augmentation", minimum=0, short="seed")
    device: str = setting(
        "auto", "auto: CUDA if available", options=["auto", "cpu", "cuda"], short="device", identity=False
    )
    memory: str = setting(
        "off",
        "auto: keep as much for the backward pass as the GPU's free memory holds: with less of it, fewer "
        "data.scenes_at_once, then model.gradient_checkpointing with model.keep=attention, then without",
        options=["off", "auto"],
        short="memory",
        identity=False,
    )
    threads: int = setting(0, "CPU threads to compute with; 0: all", minimum=0, identity=False)
    log_every: int = setting(10, "steps between lines of metrics.jsonl", minimum=1, identity=False)
    checkpoint_every: int = setting(1000, "steps between checkpoints; 0: only at the end", minimum=0, identity=False)
    keep: int = setting(2, "latest checkpoints kept, besides the best", minimum=1, identity=False)
    validate_every: int = setting(1000, "steps between validations; 0: none", minimum=0, identity=False)
    validation_steps: int = setting(20, "batches per validation, always the same ones", minimum=1)
    tensorboard: bool = setting(False, "also write TensorBoard events", identity=False)
    progress: bool = setting(True, "progress bar", identity=False)
    max_runtime_s: float = setting(
        0.0, "save and stop with exit code 75 after this many seconds; 0: no limit", minimum=0, identity=False
    )


@dataclass(frozen=True)
class TrainSettings:
    """All keys of ``python -m megasynth_train.finetune``; programs that start several runs add keys of their own."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def training(self) -> TrainSettings:
        """Return the settings of one run, without a subclass's keys; data.width_px=0 becomes the model's own width."""
        width_px = self.data.width_px or SIZES[self.model.size].image_size_px
        sections = {section.name: getattr(self, section.name) for section in fields(TrainSettings)}
        return TrainSettings(**sections | {"data": replace(self.data, width_px=width_px)})


@dataclass(frozen=True)
class SeveralSettings(TrainSettings):
    """A program that trains several times."""

    parallel: int = setting(
        0,
        "trainings at once, each in a process of its own; 0: on CPUs as many as cores and memory allow (of vggt-1b, "
        "or of a few steps, 1), on a GPU 1. run.threads=0 means one thread here, but all on a GPU and for vggt-1b",
        minimum=0,
    )
