"""How a model runs on a device: what settings mean there, and what each choice changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from vggt_reference import reference_images, reference_model

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem
from megasynth_train.training.arithmetic import CACHE, choose_arithmetic
from megasynth_train.training.base_model import base_model
from megasynth_train.training.settings import ModelSettings
from megasynth_train.vggt import dpt_head
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.dpt_head import resize_by_products
from megasynth_train.vggt.tables import bilinear_matrix

CONFIG = named_config("vggt-1b")


def test_defaults_leave_the_cpu_as_it_was() -> None:
    chosen = choose_arithmetic(ModelSettings(), CONFIG, "cpu")
    assert (chosen.precision, chosen.attention, chosen.depth_head, chosen.frozen) == ("fp32", "sdpa", "fp32", "bf16")
    assert str(chosen) == "fp32, attention sdpa, depth head fp32"


def test_a_hopper_card_is_used_for_what_it_can_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    chosen = choose_arithmetic(ModelSettings(frozen="fp8", compile=True), CONFIG, "cuda")
    assert (chosen.precision, chosen.depth_head, chosen.frozen) == ("bf16", "bf16", "fp8")
    assert str(chosen).startswith("bf16, attention ")
    assert str(chosen).endswith(
        f"frozen weights fp8, compiled: the first step waits for the compiler, unless its results are in {tmp_path}"
    )
    assert choose_arithmetic(ModelSettings(depth_head="fp32"), CONFIG, "cuda").depth_head == "fp32"


def test_compiled_code_is_kept_where_it_lasts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiled = ModelSettings(compile=True)
    monkeypatch.delenv(CACHE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert choose_arithmetic(compiled, CONFIG, "cpu").cache == str(tmp_path / "megasynth-attr" / "compiled")
    monkeypatch.setenv(CACHE, default_cache_dir())  # as some libraries do when they are imported
    assert choose_arithmetic(compiled, CONFIG, "cpu").cache == str(tmp_path / "megasynth-attr" / "compiled")
    monkeypatch.setenv(CACHE, str(tmp_path / "mine"))
    assert choose_arithmetic(compiled, CONFIG, "cpu").cache == str(tmp_path / "mine")
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE, str(tmp_path / "file"))
    with pytest.raises(EnvironmentProblem, match=rf"compiled code in {tmp_path}/file, where .* set .* {CACHE} to"):
        choose_arithmetic(compiled, CONFIG, "cpu")
    assert choose_arithmetic(ModelSettings(), CONFIG, "cpu").cache == ""


def test_fp8_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"model\.frozen=fp8 needs model\.precision=bf16, and it is fp32"):
        choose_arithmetic(ModelSettings(frozen="fp8"), CONFIG, "cpu")
    with pytest.raises(ConfigError, match=r"model\.frozen=fp8 needs a CUDA GPU and this run is on cpu"):
        choose_arithmetic(ModelSettings(frozen="fp8", precision="bf16"), CONFIG, "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    with pytest.raises(EnvironmentProblem, match=r"needs compute capability 9\.0, and a card has 8\.9"):
        choose_arithmetic(ModelSettings(frozen="fp8"), CONFIG, "cuda")


@given(target=st.integers(1, 40), source=st.integers(1, 40), seed=st.integers(0, 1000))
def test_resizing_by_products_is_bilinear_interpolation(target: int, source: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = (target, 41 - target)
    x = torch.randn(2, 3, source, 41 - source, generator=generator, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
    expected, found = F.interpolate(x, size, mode="bilinear", align_corners=True), resize_by_products(x, size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(y, x, grad)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-11)


@given(target=st.integers(1, 600), source=st.integers(1, 300))
def test_rounded_weights_still_sum_to_one(target: int, source: int) -> None:
    """In bfloat16 two weights that are rounded one by one miss 1 by up to 0.2 %, the same for a whole row of pixels."""
    matrix = bilinear_matrix(target, source, torch.bfloat16, torch.device("cpu"))
    assert matrix.shape == (target, source)
    assert matrix.stride(0) % 8 == 0
    assert (matrix.double().sum(1) == 1).all()
    exact = bilinear_matrix(target, source, torch.float64, torch.device("cpu"))
    assert (matrix.double() - exact).abs().max() <= 1 / 512 + 1e-9


def test_the_depth_head_in_bf16_is_within_a_thousandth() -> None:
    """With the shipped trained weights: mean relative error of depth, which the documentation states."""
    model = base_model(ModelSettings(size="vggt-tiny", checkpoint="shipped:vggt-tiny"), []).eval()
    images = torch.rand(1, 4, 3, 126, 126, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        taps = model.aggregator(images)
        depth = {}
        for precision in ("fp32", "bf16"):
            model.depth_head.precision = precision
            depth[precision] = model.depth_head(taps, (126, 126))[:, :, 0].exp()
    assert depth["bf16"].dtype == torch.float32
    error = (depth["bf16"] / depth["fp32"] - 1).abs()
    assert 1e-5 < error.mean() < 1e-3
    assert error.max() < 1e-2


@pytest.mark.parametrize("by_products", [False, True], ids=["as on the CPU", "as on CUDA"])
def test_convolutions_of_the_depth_head_stay_channels_last(by_products: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if by_products:
        monkeypatch.setattr(dpt_head, "_resize", resize_by_products)
    model, seen = reference_model(), list[bool]()

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.extend(of.is_contiguous(memory_format=torch.channels_last) for of in (inputs[0], output))

    for module in model.depth_head.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(look)
    model(reference_images("native"))
    assert len(seen) > 50 and all(seen)


def test_apply_reaches_every_part() -> None:
    model, images = reference_model(), reference_images("native")
    exact = model(images).depth
    choose_arithmetic(ModelSettings(depth_head="bf16"), model.config, "cpu").apply(model)
    assert model.depth_head.precision == "bf16"
    assert not torch.equal(model(images).depth, exact)
    choose_arithmetic(ModelSettings(), model.config, "cpu").apply(model)
    assert torch.equal(model(images).depth, exact)
