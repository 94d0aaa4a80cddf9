"""What a factor is, and which exist: those in ``scene/factors/``, and those of the plugins that were loaded.

A factor is one module that declares ``FACTOR = Factor(...)``: put it into ``scene/factors/`` or name it with
``plugins=[path/to/fog.py]``. Nothing else has to change (``docs/adding-a-factor.md``).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from megasynth_attr.core.errors import ConfigError


@dataclass(frozen=True)
class Records:
    """What exists outside the scene file, by name (sorted): materials (``identity`` and statistics), pictures and
    HDRIs (``sha256``, for HDRIs also ``irradiance_sh``), scans (``ScanRecord``). No pixels."""

    materials: Mapping[str, Any]
    pictures: Mapping[str, Any]
    hdris: Mapping[str, Any]
    scans: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Draw:
    """What a factor may look at while it is drawn.

    ``visible`` holds the factors drawn before it whose scope is at least as coarse as its own; others are absent, so
    that no variation can leak. ``configs`` holds the settings of every factor that is not off (constants of the
    preset). ``dataset_rng`` is a second stream that is the same for all scenes of a dataset: for pools and ranges drawn
    once per dataset. ``turn`` counts the factor's draws within a dataset: for what is taken in turn, not drawn.
    """

    dataset_index: int
    dataset_count: int
    frames: int
    configs: Mapping[str, Any]
    visible: Mapping[str, Any]
    dataset_rng: np.random.Generator
    records: Records
    turn: int = 0


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean absolute difference of two descriptions."""
    return float(np.abs(a - b).mean())


@dataclass(frozen=True)
class Factor:
    """One attribute of a scene.

    ``settings`` is a frozen dataclass made with ``core/fields.py`` whose first fields are ``scope`` and ``variants``;
    an optional method ``validate(name, settings_of_all_factors)`` raises ConfigError. ``data`` is the frozen dataclass
    that ``sample`` returns and the scene file holds. Factors are drawn in the order of ``order`` and see only those
    with a smaller one. ``describe`` maps (data, records) to an array; ``distance`` compares two such arrays (for the
    isolation matrix).

    A picture shows the factor in one or both of two ways. ``build(stage, data)`` is called inside Blender (see
    ``blender/build.py``); None: the function of that name in ``blender/factors/<name>.py``, if there is one.
    ``develop(linear_rgb, data, frame_index, rng)`` returns a rendered picture changed, in plain NumPy, without changing
    its argument: H×W×3 float32, linear, 1 is white, not yet clipped; ``rng`` depends on the data and the frame alone.

    ``changes_depth`` False is a promise, which ``verify`` checks byte for byte: visible objects that such a factor
    builds are left out of depth, normals, ids and positions. ``optional``: with default settings (whatever the scope)
    the factor is off, that is, absent from scenes and from what identifies a dataset.
    """

    name: str
    order: int
    settings: type
    data: type
    sample: Callable[[np.random.Generator, Any, Draw], Any]
    describe: Callable[[Any, Records], np.ndarray]
    changes_depth: bool
    distance: Callable[[np.ndarray, np.ndarray], float] = mean_difference
    optional: bool = True
    build: Callable[[Any, Any], None] | None = None
    develop: Callable[[np.ndarray, Any, int, np.random.Generator], np.ndarray] | None = None

    def is_off(self, settings: Any) -> bool:
        """Return whether scenes made with ``settings`` do without this factor."""
        default = self.settings()
        as_often = dataclasses.replace(settings, scope=default.scope, variants=default.variants)
        return self.optional and as_often == default


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin: SHA-256 of its source, and the names of the factors it declares."""

    sha256: str
    factors: tuple[str, ...]


_plugin_factors: dict[str, Factor] = {}  # of this process; only load_plugins adds to it
_plugin_sources: dict[str, tuple[str, str]] = {}  # factor → what was given for its plugin, SHA-256 of the source


def registered() -> dict[str, Factor]:
    """Return all factors by name, in drawing order: the shipped ones, and those of the plugins loaded so far."""
    return dict(sorted((_shipped() | _plugin_factors).items(), key=lambda item: (item[1].order, item[0])))


@functools.cache
def _shipped() -> dict[str, Factor]:
    from megasynth_attr.scene import factors

    names = sorted(module.name for module in pkgutil.iter_modules(factors.__path__))
    modules = [importlib.import_module(f"{factors.__name__}.{name}") for name in names]
    return {factor.name: factor for module in modules for factor in _declared(module)}


def _declared(module: ModuleType) -> list[Factor]:
    return [value for value in vars(module).values() if isinstance(value, Factor)]


def load_plugins(paths: Iterable[str]) -> dict[str, Plugin]:
    """Import each file (``fog.py``) or module (``my_package.fog``), add the factors it declares, and return the plugins
    by name (a file's name is its stem).

    ConfigError if one is missing, does not import, declares no factor, or one whose name is taken.
    """
    plugins = {}
    for item in paths:
        module = _module_of(item)
        factors = _declared(module)
        if not factors:
            raise ConfigError(f"plugins: {item} declares no factor; it needs FACTOR = Factor(...) at module level")
        sha256 = hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
        for factor in factors:
            if registered().get(factor.name, factor) is not factor:
                raise ConfigError(f"plugins: {item} declares a factor {factor.name!r}, which exists already; rename it")
            _plugin_factors[factor.name] = factor
            _plugin_sources[factor.name] = (item, sha256)
        name = Path(item).stem if item.endswith(".py") else item
        plugins[name] = Plugin(sha256, tuple(factor.name for factor in factors))
    return plugins


def loaded_plugins() -> tuple[str, ...]:
    """Return the files and modules of the plugins loaded so far, for another process to load."""
    return tuple(dict.fromkeys(item for name, (item, _) in _plugin_sources.items() if name in _plugin_factors))


def compare_plugins(factors: Iterable[str], recorded: Mapping[str, str], where: str) -> None:
    """Raise ConfigError if a loaded plugin declares one of ``factors`` and is not among those ``recorded`` (hashes)."""
    for name in sorted(_plugin_factors.keys() & set(factors)):
        item, sha256 = _plugin_sources[name]
        if sha256 not in recorded.values():
            raise ConfigError(
                f"plugins: {item} (SHA-256 {sha256[:12]}) is not the plugin with which the factor {name!r} of {where} "
                f"was made ({_hashes(recorded)}); give that one, or none"
            )


def missing_plugin(name: str, recorded: Mapping[str, str]) -> str:
    """Return the sentence that says which plugin declares a factor that is unknown here, and how to give it."""
    return (
        f"no plugin given here declares the factor {name!r}, so its data stay plain; it was made with "
        f"{_hashes(recorded)}: if you trust that file, give it with plugins=[path/to/file.py]"
    )


def _hashes(recorded: Mapping[str, str]) -> str:
    return ", ".join(f"{name}, SHA-256 {sha256[:12]}" for name, sha256 in recorded.items()) or "no recorded plugin"


def _module_of(item: str) -> ModuleType:
    """Return the imported module; a file's module is named after its content too, so that equal stems do not clash."""
    path = Path(item)
    if path.suffix == ".py" and not path.is_file():
        raise ConfigError(f"plugins: there is no file {item}")
    try:
        if path.suffix != ".py":
            return importlib.import_module(item)
        source = path.read_bytes()
        name = f"{path.stem}_{hashlib.sha256(source).hexdigest()[:16]}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # dataclasses look their module up while it is executed
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]
    except Exception as error:  # a plugin's code can raise anything
        raise ConfigError(f"plugins: {item} does not import: {type(error).__name__}: {error}") from error
