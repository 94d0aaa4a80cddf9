"""Find, open and write files of weights: safetensors or ``torch.save``, local, on the hub or shipped."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from megasynth_attr.core.errors import DatasetError, EnvironmentProblem, choices, first_line
from megasynth_attr.core.files import storage_errors
from megasynth_attr.core.pages.words import listed
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.core.temporary import written_beside
from megasynth_train.vggt.source_names import ADAPTER_WEIGHTS, SHIPPED, hub_id
from megasynth_train.vggt.torch_files import PICKLE, ZIP, read_state_dict

NAMES = ("model.safetensors", "model.pt")  # in a folder and on the hub, in this order
_ADAPTER_NAMES = ("adapter.json", "adapter_config.json", *ADAPTER_WEIGHTS)
_NO_WEIGHTS = {  # often found in place of a download → its first bytes, what to do
    "a pointer of Git LFS": (b"version https://git-lfs", "fetch it with git lfs pull"),
    "a web page": (b"<", "download the file itself"),
}


@dataclass(frozen=True)
class StoredWeights:
    """What a file holds: tensors mapped from it, and the text metadata of a safetensors file."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def locate(source: str) -> Path:
    """Return the local file of ``source``; a hub id is downloaded, which a line on stderr announces.

    ``shipped:<name>`` is a model that comes with the project. DatasetError if ``source`` does not exist or is an
    adapter.
    """
    if source.startswith(SHIPPED):
        return _shipped(source.removeprefix(SHIPPED))
    path = Path(source)
    if path.is_dir():
        for name in NAMES:
            if (path / name).is_file():
                return path / name
        if any((path / name).is_file() for name in _ADAPTER_NAMES):
            raise _adapter_error(path, path)
        raise DatasetError(f"{path} holds neither {' nor '.join(NAMES)}; give the folder or file of a checkpoint")
    if path.is_file():
        if path.name in _ADAPTER_NAMES:
            raise _adapter_error(path, path.parent)
        return path
    repo, revision = hub_id(source)
    print(f"there is no local file or folder {source}; asking the hub", file=sys.stderr, flush=True)
    return _download(repo, revision)


def read_weights(path: Path) -> StoredWeights:
    """Return the tensors of a file, mapped rather than copied where its format allows that.

    DatasetError for a file that is damaged, is not a state dict, or holds what cannot be read safely.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(64)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror})") from None
    # the header follows its length, which may begin with any byte: of 32 files one begins like a pickle
    if beginning[8:9] != b"{":
        for kind, (start, advice) in _NO_WEIGHTS.items():
            if beginning.lower().startswith(start):
                raise DatasetError(f"{path} is {kind}, not the weights themselves; {advice}")
        if beginning.startswith((ZIP, PICKLE)):
            return StoredWeights(read_state_dict(path, is_zip=beginning.startswith(ZIP)), {})
    try:
        with safe_open(path, framework="pt") as opened:
            names = opened.keys()
            return StoredWeights({name: opened.get_tensor(name) for name in names}, opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DatasetError(
            f"{path} cannot be read as weights ({first_line(error)}); it is cut short or not a checkpoint: download it "
            "again"
        ) from error


def check_numbers(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise DatasetError unless all ``weights`` of a file are finite floating-point numbers."""
    if types := sorted({str(tensor.dtype) for tensor in weights.values() if not tensor.is_floating_point()}):
        raise DatasetError(f"{path} holds {', '.join(types)} where weights must be floating point; they are no weights")
    for name, tensor in weights.items():
        # One pass without a temporary, NaN wins both: the published file has 1.2 billion numbers.
        numbers = tensor.float() if tensor.element_size() == 1 else tensor  # PyTorch compares no float8
        if tensor.numel() and not torch.stack(torch.aminmax(numbers)).isfinite().all():
            raise DatasetError(f"{path}: {name} holds NaN or infinite numbers; download or save the file again")


def misfit(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return which tensors ``found`` lacks, has in excess, or has in another shape than ``expected``; empty if none."""
    lacking = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    for what, names in (("lacks", lacking), ("has unknown", unknown), ("has other shapes:", shapes)):
        if names:
            return f"it {what} {listed(names)}"
    return ""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file and flush it to disk; OSError if that fails. Not atomic: for files renamed later."""
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.touch()
    mode = path.stat().st_mode  # follows the user's umask; the library makes files readable by their owner only
    try:
        save_file(on_host, path, dict(metadata) or None)  # no tensors and {} would give an unreadable header
    except SafetensorError as error:  # the library gives the system's error number only in its text
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(mode)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], what: str) -> None:
    """Write a safetensors file, whole or not at all; EnvironmentProblem naming ``what`` if that fails."""
    with storage_errors(what, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path, "weights") as temporary:
            write_tensors(temporary, tensors, metadata)


def _shipped(name: str) -> Path:
    folder = resource_dir("assets") / "models"
    known = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    if name not in known:
        raise DatasetError(f"checkpoint {SHIPPED}{name}: no such model comes with the project; {choices(known)}")
    return known[name]


def _adapter_error(path: Path, folder: Path) -> DatasetError:
    return DatasetError(
        f"{path} is an adapter, not a checkpoint: give adapter={folder}, and the base model it was trained from as "
        "checkpoint="
    )


def _download(repo: str, revision: str | None) -> Path:
    """Return the local copy of a repository's weights, downloaded unless cached."""
    unreachable: LocalEntryNotFoundError | None = None
    for name in NAMES:
        try:
            # Once the hub is known to be out of reach, only the cache is asked: each attempt takes half a minute.
            return Path(hf_hub_download(repo, name, revision=revision, local_files_only=unreachable is not None))
        except LocalEntryNotFoundError as error:
            unreachable = unreachable or error
        except EntryNotFoundError:
            continue
        except RevisionNotFoundError:
            raise DatasetError(f"the hub's repository {repo} has no revision {revision}") from None
        except RepositoryNotFoundError:
            raise DatasetError(
                f"the hub has no repository {repo}, or it is private; give a local file, or log in with 'hf auth login'"
            ) from None
        except (HfHubHTTPError, OSError) as error:
            raise EnvironmentProblem(
                f"{repo} cannot be downloaded from the hub: {error}; download {name} by hand"
            ) from error
    if unreachable is not None:
        raise EnvironmentProblem(
            f"the hub cannot be reached and its cache on this machine does not hold {repo}; download its "
            f"{' or '.join(NAMES)} elsewhere and give the file as checkpoint="
        ) from unreachable
    raise DatasetError(f"the hub's repository {repo} holds neither {' nor '.join(NAMES)}")
