"""Files of ``torch.save``, in its current and its old format: tensors and NumPy arrays are read, code is never run."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megasynth_attr.core.errors import DatasetError, is_out_of_memory

ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # first bytes of the files of torch.save: since PyTorch 1.6, and before
_CLASS = re.compile(r"Unsupported global: GLOBAL (\S+)|but got <class '([^']+)'>")
NESTED = ("model", "module", "state_dict", "model_state_dict", "ema")  # where training checkpoints keep a state dict
_NAMED = 4  # names in a message
_NUMBERS = "?bBhHiIlLqQefd"  # NumPy's types that PyTorch has too


def read_state_dict(path: Path, is_zip: bool) -> dict[str, Tensor]:
    """Return the tensors of a state dict, mapped from the file if ``is_zip``; arrays become tensors.

    If exactly one of the keys ``NESTED`` holds a state dict, that key and a dot come before its names. Only tensors,
    NumPy arrays and plain values are unpickled. DatasetError for anything else, naming it.
    """
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            record = torch.load(path, map_location="cpu", mmap=is_zip, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, KeyError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise DatasetError(f"{path} cannot be read as weights ({_reason(error)}") from error
    if not isinstance(record, Mapping):
        held = type(record).__name__
    elif (tensors := _tensors(record)) or not record:
        return tensors
    else:
        nested = {key: tensors for key in NESTED if (tensors := _tensors(record.get(key)))}
        if len(nested) == 1:
            return {f"{key}.{name}": tensor for key, found in nested.items() for name, tensor in found.items()}
        held = ", ".join(map(str, nested or list(record)[:_NAMED]))
    raise DatasetError(f"{path} is not a state dict (it holds {held}); save the model's state dict alone")


def _tensors(record: Any) -> dict[str, Tensor]:
    """Return a state dict with arrays as tensors; empty for anything else."""
    tensors = {name: _as_tensor(value) for name, value in record.items()} if isinstance(record, Mapping) else {}
    return tensors if all(isinstance(value, Tensor) for value in tensors.values()) else {}


def _as_tensor(value: Any) -> Any:
    """Return an array of numbers as a tensor, anything else as it is."""
    if not isinstance(value, np.ndarray) or value.dtype.char not in _NUMBERS:
        return value
    return torch.from_numpy(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))


def _reason(error: Exception) -> str:
    """Return why a file was refused and, after a closing bracket, what to do."""
    text = str(error)
    if "TorchScript" in text:
        return "it is a TorchScript program, not a state dict); save the state_dict() of the model it was made from"
    if found := _CLASS.search(text):
        return (
            f"it holds {found[1] or found[2]}, and reading that could run any program); if you trust the file, open "
            "it with torch.load(…, weights_only=False) and save the model's state dict alone"
        )
    if "Unsupported operand" in text:
        return "it is a pickle that torch.save did not write); save the model's state dict with torch.save"
    shown = text.splitlines()[0].split(". ")[0] if text else type(error).__name__
    return f"{shown}); it is cut short or not a checkpoint: download it again"


def _numpy_globals() -> list[Any]:
    """Return the functions and types that unpickle NumPy's numeric arrays and scalars, under NumPy 1's and 2's names.

    Arrays of objects are refused: their type is not included.
    """
    functions = [np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    types = {type(np.dtype(kind)) for kind in _NUMBERS}
    return [np.ndarray, np.dtype, *types, *(_called(f, module) for f in functions for module in modules)]  # type: ignore[arg-type]


def _called(function: Callable[..., Any], module: str) -> Callable[..., Any]:
    """Return ``function`` under the name it has in ``module``, which is how PyTorch looks it up."""

    def same(*arguments: Any) -> Any:
        return function(*arguments)

    same.__module__, same.__qualname__ = module, function.__name__
    return same
