"""How a model runs on one device: precision, kernels, compiled parts."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem
from megasynth_train.training.settings import ModelSettings
from megasynth_train.vggt.attention import resolve_attention
from megasynth_train.vggt.block import Attention
from megasynth_train.vggt.config import EVERYTHING, VGGTConfig
from megasynth_train.vggt.dpt_head import DPTHead
from megasynth_train.vggt.fp8 import replace_frozen_linears
from megasynth_train.vggt.model import VGGT, compile_model
from megasynth_train.vggt.precision import resolve_precision

CACHE = "TORCHINDUCTOR_CACHE_DIR"  # the compiler's own variable
_FP8_CAPABILITY = 9  # of products with one scale per row


@dataclass(frozen=True)
class Arithmetic:
    """How a model runs on one device; see ModelSettings. No value is "auto"."""

    precision: str
    attention: str  # of encoder and aggregator; the camera head's, in fp32 over a few views, is always sdpa
    depth_head: str
    frozen: str
    kept: str  # of a block for the backward pass
    cache: str  # folder of compiled code; empty if none is compiled

    def __str__(self) -> str:
        parts = [self.precision, f"attention {self.attention}", f"depth head {self.depth_head}"]
        parts += ["frozen weights fp8"] * (self.frozen == "fp8")
        parts += [f"blocks keep {self.kept} for the backward pass"] * (self.kept != EVERYTHING)
        if self.cache:
            parts += [f"compiled: the first step waits for the compiler, unless its results are in {self.cache}"]
        return ", ".join(parts)

    def apply(self, model: VGGT) -> None:
        """Make ``model``, already adapted, run so. With frozen weights in fp8 its state dict lacks them afterwards."""
        for module in model.aggregator.modules():
            if isinstance(module, Attention):
                module.kernel = self.attention
        for module in model.modules():
            if isinstance(module, DPTHead):
                module.precision = self.depth_head
        model.kept = self.kept
        if self.frozen == "fp8":
            replace_frozen_linears(model.aggregator)
        if self.cache:
            os.environ[CACHE] = self.cache
            compile_model(model)


def choose_arithmetic(settings: ModelSettings, config: VGGTConfig, device: torch.device | str) -> Arithmetic:
    """Return what ``settings`` mean on ``device``; ConfigError or EnvironmentProblem for what cannot run there."""
    device, precision = torch.device(device), resolve_precision(settings.precision, device)
    heads = {config.width // config.heads, config.width // config.encoder_heads}
    chosen = {resolve_attention(settings.attention, device, precision, channels) for channels in heads}
    depth_head = settings.depth_head
    if depth_head == "auto":
        depth_head = precision if device.type == "cuda" else "fp32"
    if settings.frozen == "fp8":
        _refuse_fp8(device, precision)
    return Arithmetic(
        precision,
        chosen.pop() if len(chosen) == 1 else "sdpa",
        depth_head,
        settings.frozen,
        settings.kept,
        _compiler_cache() if settings.compile else "",
    )


def _compiler_cache() -> str:
    """Return the folder that keeps compiled code for later runs, made if need be; EnvironmentProblem if it cannot be.

    By itself the compiler takes one below /tmp, which a node of a farm loses, and writes it into its variable as soon
    as some library loads it: that is no user's word.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # takes a second

    given = os.environ.get(CACHE, "")
    if given == default_cache_dir():
        given = ""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    folder = Path(given or home / "megasynth-attr" / "compiled").absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return str(folder)
    except OSError as error:
        raise EnvironmentProblem(
            f"model.compile=true keeps compiled code in {folder}, where nothing can be written ({error.strerror}); set "
            f"the environment variable {CACHE} to a folder that lasts"
        ) from error


def _refuse_fp8(device: torch.device, precision: str) -> None:
    if precision != "bf16":
        raise ConfigError(f"model.frozen=fp8 needs model.precision=bf16, and it is {precision}")
    if device.type != "cuda":
        raise ConfigError(f"model.frozen=fp8 needs a CUDA GPU and this run is on {device.type}; use model.frozen=bf16")
    major, minor = torch.cuda.get_device_capability(device)
    if major < _FP8_CAPABILITY:
        raise EnvironmentProblem(
            f"model.frozen=fp8 needs compute capability {_FP8_CAPABILITY}.0, and {torch.cuda.get_device_name(device)} "
            f"has {major}.{minor}; use model.frozen=bf16"
        )
