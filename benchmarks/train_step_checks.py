"""What the fast arithmetic changes: attention kernels, a block with LoRA, and the loss with fp8 weights.

    python benchmarks/train_step_checks.py                    # all three
    python benchmarks/train_step_checks.py check=fp8 steps=50

train_step.py runs it, too. What this machine cannot run is said, not left out in silence.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product

import common  # noqa: F401  the checkout's path
import torch
import train_step_run as stepping
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, run_main
from megasynth_attr.core.fields import setting
from megasynth_train.adapters.lean import lean_adapters
from megasynth_train.cost.step import StepShape
from megasynth_train.training.optimiser import set_learning_rate
from megasynth_train.vggt.attention import attend, resolve_attention
from megasynth_train.vggt.block import Block
from megasynth_train.vggt.config import ATTENTION_KERNELS, EVERYTHING, named_config
from megasynth_train.vggt.precision import resolve_precision, set_backends, store_frozen_in_bf16
from megasynth_train.vggt.tables import grid_rotation

HELP = Help(
    usage="python benchmarks/train_step_checks.py [key=value ...]",
    explanation="Compares attention kernels with plain attention, a block in bf16 with float32, and fp8 with bf16.",
    examples=("python benchmarks/train_step_checks.py check=attention",),
)
SHAPE = (2, 333, 4, 64)  # batch, tokens, heads, channels: no multiple of a kernel's tile


@dataclass(frozen=True)
class Options:
    """What is compared."""

    check: str = setting("all", "what to compare", options=["all", "attention", "block", "fp8"])
    device: str = setting("auto", "auto: CUDA if available", options=["auto", "cpu", "cuda"])
    model: str = setting("vggt-small", "fp8: the model that is trained", options=["vggt-small", "vggt-tiny"])
    steps: int = setting(50, "fp8: training steps", minimum=1)
    lr: float = setting(1e-4, "fp8: learning rate", minimum=0)
    seed: int = setting(0, "seed of tensors, weights and pictures", minimum=0)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q kᵀ / √channels) v, all [batch, tokens, heads, channels], written out."""
    scores = torch.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), v)


def attention_lines(device: torch.device, seed: int) -> Iterator[str]:
    """Yield for every kernel how far output and gradients are from plain attention in float64, in relative norm."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v, grad = (torch.randn(SHAPE, generator=generator).to(device, torch.bfloat16) for _ in range(4))

    def results(kernel: str) -> list[Tensor]:
        exact = kernel == "plain"
        leaves = [(of.double() if exact else of).detach().requires_grad_() for of in (q, k, v)]
        out = plain(*leaves) if exact else attend(*leaves, kernel)
        return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]

    expected = results("plain")
    for kernel in ATTENTION_KERNELS[1:]:
        try:
            resolve_attention(kernel, device, "bf16", SHAPE[-1])
        except (ConfigError, EnvironmentProblem) as problem:
            yield f"{kernel}: not run: {problem}"
            continue
        errors = [float((a.double() - b).norm() / b.norm()) for a, b in zip(results(kernel), expected, strict=True)]
        names = zip(("output", "dq", "dk", "dv"), errors, strict=True)
        equal = "equal to bf16 rounding" if max(errors) < 2**-7 else "NOT EQUAL"
        yield f"{kernel}: {equal}; " + ", ".join(f"{name} {error:.1e}" for name, error in names)


def block_lines(device: torch.device, seed: int) -> Iterator[str]:
    """Yield how far a block with LoRA-16 in bf16 is from float32: what it adds, and its gradients, in relative norm."""
    torch.manual_seed(seed)
    width = 1024 if device.type == "cuda" else 128
    layers = LoraConfig(r=16, lora_alpha=32, target_modules=["qkv", "proj", "fc1", "fc2"])
    block = inject_adapter_in_model(layers, Block(width, width // 64, 4.0, qk_norm=True)).to(device)
    for name, parameter in block.named_parameters():
        parameter.requires_grad_("lora" in name)
        if "lora_B" in name or "norm" in name:
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name and "weight" in name else 0.0, 0.02)
    rotation = grid_rotation(18, 18, 5, 64, 100.0, device)
    tokens, grad = (torch.randn(2, 3, 329, width, device=device) for _ in range(2))

    def results(lean: bool, compiled: bool, exact: bool) -> list[Tensor]:
        torch._dynamo.reset()
        adapted, leaf = deepcopy(block), tokens.clone().requires_grad_()
        if lean:
            store_frozen_in_bf16(adapted)
            lean_adapters(adapted)
        run = torch.compile(adapted.forward) if compiled else adapted.forward
        with torch.autocast(device.type, torch.bfloat16, enabled=not exact):
            out = run(leaf, rotation=rotation, across=True)
        out.backward(grad)
        return [(out - leaf).detach(), leaf.grad - grad, *(p.grad for p in adapted.parameters() if p.requires_grad)]

    expected = results(False, False, True)
    for lean, compiled in product((False, True), repeat=2):
        found = results(lean, compiled, False)
        errors = [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]
        yield (
            f"{'lean' if lean else 'by PEFT'}{', compiled' * compiled}: output {errors[0]:.1e}, dx {errors[1]:.1e}, "
            f"LoRA {min(errors[2:]):.1e} to {max(errors[2:]):.1e}"
        )


def losses(options: Options, frozen: str, device: torch.device) -> list[float]:
    """Return the objective of every step of LoRA-16 from random weights, on the pictures of four steps in turn."""
    config = named_config(options.model, point_head=False)
    variant = stepping.Variant(EVERYTHING, False, "auto", "auto", frozen, "lora-16")
    trainee, precision = stepping.build(config, variant, device, options.seed), resolve_precision("auto", device)
    set_learning_rate(trainee.optimiser, options.lr)
    shape = StepShape(2, 4, config.image_size_px, config.image_size_px)
    batches = [stepping.random_batch(replace(shape), options.seed + n, device.type == "cuda") for n in range(4)]
    found = []
    for number in range(options.steps):
        step = stepping.step(trainee, batches[number % len(batches)], device, precision)
        found.append(_result(step))
    return torch.stack(found).tolist()


def _result(step: Iterator[None]) -> Tensor:
    while True:
        try:
            next(step)
        except StopIteration as end:
            result: Tensor = end.value
            return result


def fp8_lines(options: Options, device: torch.device) -> Iterator[str]:
    """Yield the losses of the same training with frozen weights in bf16 and in fp8, and how far apart they are."""
    found: dict[str, list[float]] = {}
    for frozen in ("bf16", "fp8"):
        try:
            found[frozen] = losses(options, frozen, device)
        except (ConfigError, EnvironmentProblem) as problem:
            yield f"{frozen}: not run: {problem}"
            continue
        first, last = found[frozen][0], found[frozen][-4:]
        mean = sum(last) / len(last)
        yield f"{frozen}: {options.model}, {options.steps} steps: objective {first:.4f} at first, {mean:.4f} at last"
    if len(found) == 2:
        apart = [abs(a - b) for a, b in zip(found["bf16"], found["fp8"], strict=True)]
        yield f"difference: {sum(apart) / len(apart):.4f} on average, {max(apart):.4f} at most"


def main(words: list[str]) -> None:
    """Compare and print."""
    options = parse(Options, words, HELP)
    cuda = options.device != "cpu" and torch.cuda.is_available()
    if options.device == "cuda" and not cuda:
        raise EnvironmentProblem("device=cuda, but PyTorch sees no CUDA GPU; check nvidia-smi, or use device=cpu")
    device = torch.device("cuda" if cuda else "cpu")
    set_backends()
    if options.check in ("all", "attention"):
        print("Attention, relative to plain attention in float64:", flush=True)
        for line in attention_lines(device, options.seed):
            print(f"* {line}", flush=True)
    if options.check in ("all", "block"):
        print("A block with LoRA in bf16, relative to float32:", flush=True)
        for line in block_lines(device, options.seed):
            print(f"* {line}", flush=True)
    if options.check in ("all", "fp8"):
        print("Frozen weights in fp8:", flush=True)
        for line in fp8_lines(options, device):
            print(f"* {line}", flush=True)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
