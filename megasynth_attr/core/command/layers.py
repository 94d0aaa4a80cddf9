"""Layers of unchecked settings: YAML files, files that extend others, and what lies on top."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.files import read_regular, unusable
from megasynth_attr.core.ranges import is_range_table

MOST_BYTES, MOST_VALUES, MOST_ALIASES, MOST_PRESETS = 2**18, 100_000, 40, 100


class _Loader(yaml.SafeLoader):
    """YAML without tags, and with so few aliases that a small file stays small."""

    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        self.aliases += isinstance(event, yaml.AliasEvent)
        if self.aliases > MOST_ALIASES or getattr(event, "tag", None):
            raise yaml.YAMLError(f"tags (!name) and more than {MOST_ALIASES} aliases (*name) are not read")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the nested settings of a YAML file; ConfigError if it is missing or holds something else."""
    if not path.exists():  # OSError for a name that is too long
        raise ConfigError(f"{path}: there is no such file")
    try:
        content = copy.deepcopy(_parsed(read_regular(path, MOST_BYTES).decode()))
    except (OSError, ValueError, yaml.YAMLError, RecursionError, TypeError) as error:
        # ValueError: not UTF-8, a NUL in the name; TypeError: a key that is a table
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if problem := unusable(content, MOST_VALUES, finite=False):  # that is said with the key
        raise ConfigError(f"{path} cannot be used: {problem}")
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(content).__name__}")
    return content or {}


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """Return what a YAML text holds, not to be changed: presets extend the same ones again and again."""
    return yaml.load(text, _Loader)


def take_config(words: dict[str, Any]) -> dict[str, Any]:
    """Return ``words`` on top of the file that their ``config=`` names, if there is one."""
    if "config" not in words:
        return words
    own = {key: value for key, value in words.items() if key != "config"}
    name = str(words["config"]) if not isinstance(words["config"], Mapping) else ""
    if not name:
        raise ConfigError("config= is empty: name a YAML file")
    return merge(read_yaml(Path(name)), own)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` on top; dicts merge, everything else, ranges included, is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not is_range_table(value):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def read_preset(
    name: str,
    find: Callable[[str], Path],
    _chain: tuple[Path, ...] = (),
    _reads: Iterator[int] | None = None,
) -> dict[str, Any]:
    """Return a preset's settings, those it ``extends`` (one name or a list) merged in; ``find`` maps names to files.

    A name ending in .yaml is looked for beside the file that names it, then as it is. Raises ConfigError for a preset
    that extends itself, or too many others, or has the key ``preset``, and what ``find`` raises.
    """
    path, _reads = find(name), _reads or itertools.count()
    chain = (*_chain, path.resolve())
    if chain[-1] in _chain:
        raise ConfigError(f"preset {name}: it extends itself ({' → '.join(one.stem for one in chain)})")
    if next(_reads) == MOST_PRESETS:
        raise ConfigError(f"preset {chain[0].stem}: it extends more than {MOST_PRESETS} presets")
    layer = read_yaml(path)
    if "preset" in layer:
        raise ConfigError(f"{path}: a preset names the one it builds on with extends:, not with preset:")
    parents = layer.pop("extends", [])
    parents = parents if isinstance(parents, list) else [parents]
    if not all(isinstance(parent, str) and parent for parent in parents):
        raise ConfigError(f"{path}: extends names one preset or a list of them; a number needs quotes")
    base: dict[str, Any] = {}
    for parent in parents:
        base = merge(base, read_preset(_beside(path, parent), find, chain, _reads))
    return merge(base, layer)


def _beside(file: Path, name: str) -> str:
    """Return ``name`` as a path beside ``file`` if it is a relative one that exists there, else unchanged."""
    beside = file.absolute().parent / name
    return str(beside) if name.endswith((".yaml", ".yml")) and beside.is_file() else name
