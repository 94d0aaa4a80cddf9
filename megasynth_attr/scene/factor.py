"""The registry of factors: what can vary, how it is configured, drawn, built in Blender and compared.

A factor is one module that calls ``register(Factor(...))``: put it into ``scene/factors/`` or name it with
``plugins=[path/to/fog.py]``. Nothing else needs to know it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.errors import ConfigError


@dataclass(frozen=True)
class Records:
    """What exists outside the scene file, by name (sorted): materials (``identity`` and statistics), pictures and
    HDRIs (``sha256``, for HDRIs also ``irradiance_sh``). No pixels."""

    materials: Mapping[str, Any]
    pictures: Mapping[str, Any]
    hdris: Mapping[str, Any]


@dataclass(frozen=True)
class Draw:
    """What a factor may look at while it is drawn.

    ``visible`` holds the factors drawn before it whose scope is at least as coarse as its own; others are absent, so
    that no variation can leak. ``configs`` holds every factor's settings (constants of the preset). ``dataset_rng``
    is a second stream that is the same for all scenes of a dataset: for pools and ranges drawn once per dataset.
    """

    dataset_index: int
    dataset_count: int
    frames: int
    configs: Mapping[str, Any]
    visible: Mapping[str, Any]
    dataset_rng: np.random.Generator
    records: Records


@dataclass(frozen=True)
class Factor:
    """One attribute of a scene.

    ``settings`` is a frozen dataclass made with ``core/fields.py`` whose first fields are ``scope`` and ``variants``;
    an optional method ``validate(name, settings_of_all_factors)`` raises ConfigError. ``describe`` maps (data, records)
    to an array; ``distance`` compares two such arrays (for the isolation matrix). ``build`` is "module:function",
    imported inside Blender only and called as ``function(stage, data)`` (see ``blender/build.py``), in order of
    ``order``. Sampling uses the same order, so a factor can see only those with a smaller one.
    """

    name: str
    order: int
    settings: type
    data: type
    sample: Callable[[np.random.Generator, Any, Draw], Any]
    build: str
    describe: Callable[[Any, Records], np.ndarray]
    distance: Callable[[np.ndarray, np.ndarray], float]


class _Registry:
    """Names to factors; one instance per process, filled by importing modules."""

    def __init__(self) -> None:
        self.factors: dict[str, Factor] = {}
        self.loaded = False


_registry = _Registry()


def register(factor: Factor) -> Factor:
    """Add ``factor`` and return it; ConfigError if another factor already has its name."""
    known = _registry.factors.get(factor.name)
    if known is not None and known.build != factor.build:
        raise ConfigError(f"two factors are called {factor.name!r} ({known.build} and {factor.build}); rename one")
    _registry.factors[factor.name] = factor
    return factor


def registered() -> dict[str, Factor]:
    """Return all factors by name, in drawing order; imports every module of ``scene/factors/`` on first use."""
    if not _registry.loaded:
        from megasynth_attr.scene import factors

        for module in sorted(m.name for m in pkgutil.iter_modules(factors.__path__)):
            importlib.import_module(f"{factors.__name__}.{module}")
        _registry.loaded = True
    return dict(sorted(_registry.factors.items(), key=lambda item: (item[1].order, item[0])))


def load_plugins(paths: Iterable[str]) -> dict[str, str]:
    """Import each file (``fog.py``) or module (``my_package.fog``) and return name → SHA-256 of its source.

    A file is imported under its stem, so that its ``build`` entry can name ``"fog:build"``. ConfigError if it is
    missing or does not import.
    """
    registered()
    sources: dict[str, str] = {}
    for item in paths:
        path = Path(item)
        name = path.stem if path.suffix == ".py" else item
        if path.suffix == ".py" and name not in sys.modules:
            if not path.is_file():
                raise ConfigError(f"plugins: there is no file {item}")
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                del sys.modules[name]
                raise ConfigError(f"plugins: {item} does not import: {type(error).__name__}: {error}") from error
        else:
            try:
                module = importlib.import_module(name)
            except ImportError as error:
                raise ConfigError(f"plugins: {item} does not import: {error}") from error
        sources[name] = hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
    return sources
