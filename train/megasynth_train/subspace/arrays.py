"""Reading safetensors files as NumPy arrays, without PyTorch where possible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from megasynth_attr.core.errors import DatasetError, first_line

_IN_NUMPY = ("F64", "F32", "F16")
_BEYOND_NUMPY = ("BF16", "F8_E4M3", "F8_E5M2")  # PyTorch has them


@contextmanager
def opened(path: Path, advice: str) -> Iterator[Any]:
    """Open a safetensors file; DatasetError with ``advice`` if it is missing, cut short or something else."""
    if not path.is_file():
        raise DatasetError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; {advice}")
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise DatasetError(
            f"{path} cannot be read as safetensors ({first_line(error)}); it is cut short or something else: {advice}"
        ) from None


def shapes(path: Path, advice: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a file by its name; DatasetError as ``opened``."""
    with opened(path, advice) as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


def float64(file: Any, path: Path, key: str, advice: str) -> np.ndarray:
    """Return a floating-point tensor of the open ``file`` at ``path`` as float64.

    DatasetError with ``advice`` for NaN and infinity, and for numbers that are not floating point.
    """
    kind = file.get_slice(key).get_dtype()
    if kind in _BEYOND_NUMPY:
        with safe_open(path, framework="pt") as again:
            array = again.get_tensor(key).double().numpy()
    elif kind in _IN_NUMPY:
        array = file.get_tensor(key).astype(np.float64)
    else:
        raise DatasetError(f"{path}: {key} holds numbers of type {kind}, not floating point; {advice}")
    if not np.isfinite(array).all():
        raise DatasetError(f"{path}: {key} holds NaN or infinite numbers; {advice}")
    return np.asarray(array)
