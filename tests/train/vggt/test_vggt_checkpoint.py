"""Files of weights: what is taken, what is ignored by name, what is refused and with which words."""

from __future__ import annotations

import pickle
import resource
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor
from vggt_reference import CONFIG, FIXTURES, fixture, reference_images, reference_model

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem
from megasynth_attr.core.files import sha256_of
from megasynth_train.vggt import weight_files
from megasynth_train.vggt.checkpoint import load_pretrained, save_model, weights_hash
from megasynth_train.vggt.config import named_config
from megasynth_train.vggt.initialise import random_model
from megasynth_train.vggt.model import VGGT

TRACK = {"track_head.tracker.corr_mlp.fc1.weight": torch.zeros(3, 3), "track_head.norm.bias": torch.zeros(3)}


def published_like() -> dict[str, Tensor]:
    """Return a state dict with all heads, as the published file has them, at the reference's small size."""
    heads = random_model(replace(CONFIG, point_head=True), seed=0).state_dict()
    return {**heads, **fixture("tiny_model_state"), **TRACK}


def write(path: Path, weights: dict[str, Tensor]) -> str:
    if path.suffix != ".safetensors":
        torch.save(weights, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "as_folder"),
    [
        ("model.pt", False),
        ("model.pt", True),
        ("model.safetensors", False),
        ("model.safetensors", True),
        ("weights.bin", False),
    ],
)
def test_published_files(tmp_path: Path, name: str, as_folder: bool) -> None:
    write(tmp_path / name, published_like())
    source = str(tmp_path if as_folder else tmp_path / name)
    loaded = load_pretrained(source, CONFIG)
    assert set(TRACK) <= set(loaded.ignored)
    assert {key.partition(".")[0] for key in loaded.ignored} == {"track_head", "point_head"}
    expected = fixture("tiny_model_io")["native.depth"].squeeze(-1)
    torch.testing.assert_close(loaded.model(reference_images("native")).depth, expected, rtol=0, atol=1e-5)
    assert not loaded.model.aggregator.patch_embed.mask_token.requires_grad
    assert loaded.model.aggregator.camera_token.requires_grad
    assert load_pretrained(source, replace(CONFIG, point_head=True)).ignored == tuple(sorted(TRACK))


def test_training_a_loaded_model_does_not_write_to_its_file(tmp_path: Path) -> None:
    for name in ("model.pt", "model.safetensors"):
        source = write(tmp_path / name, dict(fixture("tiny_model_state")))
        before, loaded = sha256_of(Path(source)), load_pretrained(source, CONFIG)
        with torch.no_grad():
            for weight in loaded.model.parameters():
                weight.add_(1)
        assert sha256_of(Path(source)) == before


@pytest.mark.slow
def test_the_published_key_set_at_full_size(tmp_path: Path) -> None:
    """All 1,797 tensors of facebook/VGGT-1B, each one number repeated, which torch.save stores as one number."""
    rows = [line.split("\t") for line in (FIXTURES / "vggt_state_dict_manifest.tsv").read_text().splitlines()]
    rows = [row for row in rows if not row[0].startswith("#") and row[2] == "1"]
    weights = {row[0]: torch.ones(1).expand([int(side) for side in row[5].split("x")]) for row in rows}
    loaded = load_pretrained(write(tmp_path / "model.pt", weights), named_config("vggt-1b", point_head=False))
    assert len(weights) == 1797
    assert loaded.ignored == tuple(sorted(row[0] for row in rows if row[4] in ("track_head", "point_head")))
    assert sum(weight.numel() for weight in loaded.model.parameters()) == 1_157_941_492


def test_the_default_is_the_published_size(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"other shapes: .*camera_token \(1, 2, 1, 32\) instead of \(1, 2, 1, 1024\)|lacks"
    ):
        load_pretrained(write(tmp_path / "model.pt", dict(fixture("tiny_model_state"))))


def test_saved_models_bring_their_sizes(tmp_path: Path) -> None:
    model = random_model(replace(CONFIG, depth=5, taps=(0, 2, 3, 4), point_head=True), seed=4)
    save_model(model, tmp_path / "new" / "model.safetensors")
    loaded = load_pretrained(str(tmp_path / "new"))
    assert loaded.model.config == model.config and loaded.ignored == ()
    assert weights_hash(loaded.model) == weights_hash(model)
    without = load_pretrained(str(tmp_path / "new"), replace(model.config, point_head=False))
    assert weights_hash(without.model) == weights_hash(model)
    assert without.ignored and all(name.startswith("point_head.") for name in without.ignored)


def test_the_shipped_model_is_small_and_knows_its_sizes() -> None:
    loaded = load_pretrained("shipped:vggt-tiny")
    assert loaded.model.config == named_config("vggt-tiny", point_head=False) and loaded.ignored == ()
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}


def test_files_are_as_readable_as_the_user_wants_them(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_model(random_model(CONFIG, seed=0), tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_half_precision_files_are_widened(tmp_path: Path) -> None:
    weights = {name: tensor.bfloat16() for name, tensor in fixture("tiny_model_state").items()}
    model = load_pretrained(write(tmp_path / "model.safetensors", weights), CONFIG).model
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    name = "aggregator.frame_blocks.0.attn.qkv.weight"
    assert torch.equal(model.get_parameter(name), weights[name].float())


def spoilt(name: str) -> dict[str, Tensor]:
    weights = {key: tensor.clone() for key, tensor in fixture("tiny_model_state").items()}
    if name == "missing":
        del weights["aggregator.camera_token"]
    elif name == "no camera":
        weights = {key: tensor for key, tensor in weights.items() if not key.startswith("camera_head.")}
    elif name == "extra":
        weights["wings.left.weight"] = torch.zeros(2)
    elif name == "track twin":  # not the track head, only called like it
        weights["tracker_head.norm.bias"] = torch.zeros(2)
    elif name == "shape":
        weights["depth_head.norm.bias"] = torch.zeros(65)
    elif name == "nan":
        weights["depth_head.norm.bias"][3] = torch.nan
    elif name == "inf":
        weights["depth_head.norm.bias"][3] = torch.inf
    elif name == "integers":
        weights["depth_head.norm.bias"] = weights["depth_head.norm.bias"].to(torch.int32)
    elif name == "partly prefixed":
        weights = {f"module.{key}" if key.startswith("camera") else key: tensor for key, tensor in weights.items()}
    return weights


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", r"lacks aggregator\.camera_token; give the checkpoint of this model"),
        ("no camera", r"lacks camera_head\..* more; switch off camera_head"),
        ("extra", r"unknown wings\.left\.weight"),
        ("track twin", r"unknown tracker_head\.norm\.bias"),
        ("shape", r"depth_head\.norm\.bias \(65,\) instead of \(64,\)"),
        ("nan", r"depth_head\.norm\.bias holds NaN"),
        ("inf", r"depth_head\.norm\.bias holds NaN or infinite"),
        ("integers", r"torch\.int32"),
        ("partly prefixed", r"lacks camera_head\..* more; some of its names begin with module\., others do not"),
    ],
)
def test_refusals(tmp_path: Path, name: str, words: str) -> None:
    for file in ("model.pt", "model.safetensors"):
        with pytest.raises(DatasetError, match=words) as caught:
            load_pretrained(write(tmp_path / file, spoilt(name)), CONFIG)
        assert str(tmp_path / file) in str(caught.value)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module."]
)
@pytest.mark.parametrize("file", ["model.pt", "model.safetensors"])
def test_what_wrappers_put_before_the_names_is_removed(tmp_path: Path, prefix: str, file: str) -> None:
    weights = fixture("tiny_model_state")
    inner = {
        name.replace("blocks.0.", "blocks.0._orig_mod.").replace("blocks.1.", "blocks.1._checkpoint_wrapped_module."): t
        for name, t in weights.items()
    }
    loaded = load_pretrained(write(tmp_path / file, {f"{prefix}{k}": t for k, t in (inner | TRACK).items()}), CONFIG)
    assert loaded.removed == prefix and set(loaded.ignored) == set(TRACK)
    assert weights_hash(loaded.model) == weights_hash(reference_model())


@pytest.mark.parametrize("key", ["model", "module", "state_dict", "model_state_dict", "ema"])
def test_the_only_state_dict_in_a_file_of_training_is_opened(tmp_path: Path, key: str) -> None:
    weights = {f"module.{name}": tensor for name, tensor in fixture("tiny_model_state").items()}
    torch.save({"epoch": 3, "optimizer": {"state": {}}, key: weights}, tmp_path / "run.pt")
    loaded = load_pretrained(str(tmp_path / "run.pt"), CONFIG)
    assert loaded.removed == f"{key}.module." and loaded.ignored == ()
    assert weights_hash(loaded.model) == weights_hash(reference_model())


@pytest.mark.parametrize("key", ["", "ema"])
def test_an_average_of_models_loads_without_its_counter(tmp_path: Path, key: str) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(reference_model()).state_dict()
    torch.save({key: averaged} if key else averaged, tmp_path / "model.pt")
    loaded = load_pretrained(str(tmp_path / "model.pt"), CONFIG)
    assert loaded.ignored == ("n_averaged",)
    assert weights_hash(loaded.model) == weights_hash(reference_model())
    torch.save({"n_averaged": torch.tensor(3)}, tmp_path / "model.pt")
    with pytest.raises(DatasetError, match="lacks aggregator"):
        load_pretrained(str(tmp_path / "model.pt"), CONFIG)


@pytest.mark.parametrize("is_zip", [True, False])
def test_old_files_and_arrays_of_numpy_are_read(tmp_path: Path, is_zip: bool) -> None:
    weights = fixture("tiny_model_state")
    mixed = {name: t.numpy() if i % 2 else t for i, (name, t) in enumerate(weights.items())}
    path = tmp_path / "model.pt"
    torch.save(mixed, path, _use_new_zipfile_serialization=is_zip)
    assert weights_hash(load_pretrained(str(path), CONFIG).model) == weights_hash(reference_model())


def test_float8_is_widened_and_its_nan_is_found(tmp_path: Path) -> None:
    weights = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in fixture("tiny_model_state").items()}
    model = load_pretrained(write(tmp_path / "model.safetensors", weights), CONFIG).model
    name = "aggregator.frame_blocks.0.attn.qkv.weight"
    assert torch.equal(model.get_parameter(name), weights[name].float())
    weights[name] = torch.full_like(weights[name].float(), torch.nan).to(torch.float8_e4m3fn)
    with pytest.raises(DatasetError, match=r"qkv\.weight holds NaN"):
        load_pretrained(write(tmp_path / "model.safetensors", weights), CONFIG)


class Planted:
    """Would run a program if it were unpickled as it is."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("planted"),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Planted(), r"it holds \S+, and reading that could run any program"),
        ({"a": np.array([Path("/")], dtype=object)}, "could run any program"),
        ({"a": torch.zeros(2), "epoch": np.float64(3)}, r"it holds a, epoch\); save the model's state dict alone"),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_code_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, words: str, is_zip: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "model.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(DatasetError, match=words) as caught:
        load_pretrained("model.pt", CONFIG)
    assert not Path("planted").exists() and "cut short" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS.*git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
    ],
)
def test_what_a_file_is_instead_is_said(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(DatasetError, match=words) as caught:
        load_pretrained(str(tmp_path / "model.pt"), CONFIG)
    assert "cut short" not in str(caught.value)


def test_a_header_that_begins_like_a_pickle_is_read_with_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for padding in range(0, 256, 8):  # headers are padded to 8 bytes, so one of 32 has a length that ends in 0x80
        save_file({"weight": torch.ones(3)}, path, {"note": " " * padding})
        if path.read_bytes()[0] == 0x80:
            break
    else:
        pytest.fail("no header has this length")
    assert weight_files.read_weights(path).metadata == {"note": " " * padding}


def test_an_empty_shelf_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "resource_dir", lambda name: tmp_path)
    with pytest.raises(DatasetError, match="no such model comes with the project; there is none to choose from"):
        load_pretrained("shipped:vggt-tiny", CONFIG)


@pytest.mark.parametrize("file", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_files_cut_short(tmp_path: Path, file: str, share: float) -> None:
    path = Path(write(tmp_path / file, dict(fixture("tiny_model_state"))))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DatasetError, match="cut short or not a checkpoint"):
        load_pretrained(str(path), CONFIG)


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    weights = dict(fixture("tiny_model_state"))
    torch.save({"epoch": 3, "ema": weights, "optimizer": {}, "model": weights}, tmp_path / "run.pt")
    with pytest.raises(DatasetError, match=r"it holds model, ema\); save the model's state dict alone"):
        load_pretrained(str(tmp_path / "run.pt"), CONFIG)
    torch.save(Path("/"), tmp_path / "code.pt")  # unpickling this would run code of its choice
    with pytest.raises(DatasetError, match="cannot be read as weights"):
        load_pretrained(str(tmp_path / "code.pt"), CONFIG)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"neither model\.safetensors nor model\.pt"):
        load_pretrained(str(tmp_path / "empty"), CONFIG)
    for source in ("weights/model.pt", "nonsense", "/no/such/place"):
        with pytest.raises(DatasetError, match="neither a file, nor a folder, nor a hub id"):
            load_pretrained(source, CONFIG)
    with pytest.raises(DatasetError, match="cut short or not a checkpoint"):
        load_pretrained(str(FIXTURES / "lr_schedule.npz"), CONFIG)


@pytest.mark.parametrize("given", ["", "adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter_is_no_checkpoint(tmp_path: Path, given: str) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    write(tmp_path / "adapter_model.safetensors", {"lora_A": torch.zeros(2)})
    with pytest.raises(DatasetError, match=rf"is an adapter, not a checkpoint: give adapter={tmp_path},"):
        load_pretrained(str(tmp_path / given), CONFIG)


def test_recorded_sizes_that_cannot_be_used(tmp_path: Path) -> None:
    metadata = {"format": "pt", "megasynth": "megasynth-vggt", "config": '{"wings": 2}'}
    save_file(dict(fixture("tiny_model_state")), tmp_path / "model.safetensors", metadata)
    with pytest.raises(DatasetError, match="unknown size 'wings'"):
        load_pretrained(str(tmp_path))


def test_a_disk_that_cannot_take_the_model_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(reference_model(), path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(EnvironmentProblem, match=r"the model cannot be written to .*model\.safetensors"):
            save_model(random_model(CONFIG, seed=9), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_hash_names_a_base() -> None:
    model = reference_model()
    base = weights_hash(model)
    assert base == weights_hash(reference_model())
    model.requires_grad_(False)
    assert weights_hash(model) == base
    with torch.no_grad():
        model.depth_head.norm.bias[0] += 1e-6
    assert weights_hash(model) != base


class Hub(ThreadingHTTPServer):
    """As much of a model hub as a download needs: one repository that only holds ``model.pt``."""

    content: bytes = b""


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        known = self.path == "/maker/small-vggt/resolve/main/model.pt"
        repository = self.path.startswith("/maker/small-vggt/")
        self.send_response(200 if known else 404 if repository else 401)
        if known:
            self.send_header("ETag", '"0123456789abcdef"')
            self.send_header("X-Repo-Commit", "f" * 40)
            self.send_header("Content-Length", str(len(self.server.content)))
        else:
            self.send_header("X-Error-Code", "EntryNotFound" if repository else "RepoNotFound")
            self.send_header("Content-Length", "0")
        self.end_headers()
        if known and with_body:
            self.wfile.write(self.server.content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), HubHandler)
    server.content = Path(write(tmp_path / "published.pt", published_like())).read_bytes()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def test_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_pretrained("maker/small-vggt", CONFIG)
    assert "there is no local file or folder maker/small-vggt; asking the hub" in capsys.readouterr().err
    assert isinstance(loaded.model, VGGT)
    with pytest.raises(DatasetError, match="no repository maker/other"):
        load_pretrained("maker/other", CONFIG)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached = load_pretrained("maker/small-vggt", CONFIG)
    assert weights_hash(cached.model) == weights_hash(loaded.model)
    with pytest.raises(
        EnvironmentProblem, match=r"hub cannot be reached .* download its model\.safetensors or model\.pt"
    ):
        load_pretrained("maker/another", CONFIG)
