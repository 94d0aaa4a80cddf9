"""Attention kernels: which is chosen, what is refused, and that all compute the same."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem
from megasynth_train.vggt import attention
from megasynth_train.vggt.attention import attend, resolve_attention
from megasynth_train.vggt.block import Block
from megasynth_train.vggt.tables import grid_rotation

ON_A_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def plain(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return attention [batch, tokens, heads, channels] and the logarithm of the sums, written out."""
    scores = torch.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), v), scores.logsumexp(-1).float()


class WrittenOut(ModuleType):
    """The two functions of FlashAttention-4's package that are called, in plain arithmetic on any device."""

    calls: int = 0

    def _flash_attn_fwd(self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool, out: Tensor, lse: Tensor) -> Any:
        assert return_lse
        self.calls += 1
        for given, value in zip((out, lse), plain(q, k, v), strict=True):
            given.copy_(value)
        return out, lse, None, None, None

    def _flash_attn_bwd(
        self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, dout: Tensor, lse: Tensor, *, dq: Tensor, dk: Tensor,
        dv: Tensor,
    ) -> Any:  # fmt: skip
        scores = torch.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5
        weights = (scores - lse.unsqueeze(-1)).exp()  # from the saved sums, as flash attention does it
        of_weights = torch.einsum("bqhc,bkhc->bhqk", dout, v)
        of_scores = weights * (of_weights - (dout * out).sum(-1).transpose(1, 2).unsqueeze(-1)) / q.shape[-1] ** 0.5
        dq.copy_(torch.einsum("bhqk,bkhc->bqhc", of_scores, k))
        dk.copy_(torch.einsum("bhqk,bqhc->bkhc", of_scores, q))
        dv.copy_(torch.einsum("bhqk,bqhc->bkhc", weights, dout))
        return dq, dk, dv


@pytest.fixture
def written_out(monkeypatch: pytest.MonkeyPatch) -> WrittenOut:
    module = WrittenOut("flash_attn.cute.interface")
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute", ModuleType("flash_attn.cute"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", module)
    monkeypatch.setattr(attention, "_package", lambda kernel: module)
    return module


def heads(seed: int, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def test_fa4s_operators_have_the_gradient_of_attention(written_out: WrittenOut) -> None:
    q, k, v = heads(0, 2, 5, 3, 8)
    assert torch.autograd.gradcheck(lambda *three: attend(*three, "fa4"), (q, k, v), atol=1e-6)
    expected = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    torch.testing.assert_close(attend(q, k, v, "fa4"), expected)


def test_fa4s_operators_describe_themselves_truly(written_out: WrittenOut) -> None:
    """PyTorch's own check: schema, shapes for tracing, gradients through the compiler; for a strided v too."""
    q, k, v = heads(1, 2, 5, 3, 8)
    strided = torch.cat((v, v), dim=-1).detach()[..., :8].requires_grad_()
    for third in (v, strided):
        torch.library.opcheck(torch.ops.megasynth.fa4_forward.default, (q, k, third))
    q, k, v = (x.detach() for x in (q, k, strided))
    out, sums = torch.ops.megasynth.fa4_forward(q, k, v)
    torch.library.opcheck(torch.ops.megasynth.fa4_backward.default, (torch.ones_like(out), q, k, v, out, sums))


@pytest.mark.parametrize(("kept", "calls"), [("everything", 1), ("attention", 1), ("nothing", 2)])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_block_with_fa4_is_one_graph_and_keeps_its_results(
    compiled: bool, kept: str, calls: int, written_out: WrittenOut
) -> None:
    torch._dynamo.reset()
    block = Block(32, 2, 2.0, qk_norm=True)
    rotation = grid_rotation(2, 3, 5, 16, 100.0, torch.device("cpu"))
    tokens = torch.randn(2, 11, 32, generator=torch.Generator().manual_seed(0))

    def run(function: Any) -> tuple[Tensor, Tensor]:
        block.zero_grad()
        out = function(tokens, rotation)
        out.square().mean().backward()
        assert block.attn.qkv.weight.grad is not None
        return out.detach(), block.attn.qkv.weight.grad

    expected = run(block)
    block.attn.kernel, block.kept = "fa4", kept
    function = torch.compile(block, backend="aot_eager", fullgraph=True) if compiled else block
    for found, exact in zip(run(function), expected, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)
    assert written_out.calls == calls


def test_auto_is_pytorchs_choice_without_a_card() -> None:
    for precision in ("fp32", "bf16"):
        assert resolve_attention("auto", "cpu", precision, 64) == "sdpa"
    assert resolve_attention("sdpa", "cpu", "fp32", 64) == "sdpa"


def test_auto_takes_the_fastest_that_is_installed_and_fits(
    written_out: WrittenOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(capability: tuple[int, int], precision: str = "bf16", channels: int = 64) -> str:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return resolve_attention("auto", "cuda", precision, channels)

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    assert (chosen((9, 0)), chosen((10, 0))) == ("fa4", "fa4")
    assert {chosen((8, 0)), chosen((12, 0)), chosen((9, 0), "fp32"), chosen((9, 0), channels=36)} == {"sdpa"}
    monkeypatch.setitem(sys.modules, "flash_attn_interface", ModuleType("flash_attn_interface"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", None)  # not installed
    assert (chosen((9, 0)), chosen((10, 0))) == ("fa3", "sdpa")


@pytest.mark.parametrize("kernel", ["cudnn", "flash", "fa3", "fa4"])
def test_named_kernels_are_never_replaced_in_silence(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"model.attention={kernel} needs a CUDA GPU and this run is on cpu"):
        resolve_attention(kernel, "cpu", "bf16", 64)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    with pytest.raises(ConfigError, match=r"needs model\.precision=bf16, and it is fp32"):
        resolve_attention(kernel, "cuda", "fp32", 64)
    with pytest.raises(ConfigError, match="this model has 36"):
        resolve_attention(kernel, "cuda", "bf16", 36)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(EnvironmentProblem, match=r"needs compute capability .*, and a card has 7\.5"):
        resolve_attention(kernel, "cuda", "bf16", 64)
    assert resolve_attention("auto", "cuda", "bf16", 64) == "sdpa"


@pytest.mark.parametrize(("kernel", "package"), [("fa3", "flash_attn_interface"), ("fa4", "flash_attn")])
def test_packages_that_are_not_installed_are_named(kernel: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.raises(EnvironmentProblem, match=f"model.attention={kernel}: No module named '{package}' .it needs "):
        resolve_attention(kernel, "cuda", "bf16", 64)


def test_a_package_that_breaks_on_import_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flash_attn_interface.py").write_text('raise OSError("libfa3.so: undefined symbol")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.raises(EnvironmentProblem, match=r"model\.attention=fa3: libfa3\.so: undefined symbol .it needs "):
        resolve_attention("fa3", "cuda", "bf16", 64)
    with pytest.warns(UserWarning, match="libfa3"):
        assert resolve_attention("auto", "cuda", "bf16", 64) == "sdpa"


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.attention 'fa2' is unknown; use auto, sdpa, cudnn"):
        resolve_attention("fa2", "cpu", "fp32", 64)


@ON_A_CARD
@pytest.mark.parametrize("kernel", ["cudnn", "flash", "fa3", "fa4"])
def test_kernels_agree_to_rounding_on_a_card(kernel: str) -> None:
    try:
        resolve_attention(kernel, "cuda", "bf16", 64)
    except EnvironmentProblem as reason:
        pytest.skip(str(reason))
    exact = [x.detach().to("cuda", torch.bfloat16).double().requires_grad_() for x in heads(2, 2, 700, 4, 64)]
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    weights = torch.randn_like(exact[0]).bfloat16()
    truth, found = plain(*exact)[0], attend(*rounded, kernel)
    (truth * weights.double()).sum().backward()
    (found * weights).sum().backward()
    pairs = [(found, truth), *((a.grad, b.grad) for a, b in zip(rounded, exact, strict=True))]
    for mine, true in pairs:
        assert mine is not None and true is not None
        assert ((mine.double() - true).norm() / true.norm()) < 8e-3
