"""A preset plus ``key=value`` words become one checked, frozen Config per attribute.

Precedence: defaults < preset (with ``extends``) < ``config=file.yaml`` < command line. Every key is declared once, in a
dataclass, with its default, meaning and limits; the keys of a factor live with the factor.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from megasynth_attr import __version__
from megasynth_attr.errors import ConfigError, DatasetError
from megasynth_attr.resources import resource_dir
from megasynth_attr.scene.codec import content_hash, from_plain, to_plain
from megasynth_attr.scene.factor import load_plugins, registered
from megasynth_attr.scene.fields import check
from megasynth_attr.settings import ContentSettings, IsolationSettings, RenderSettings, RunSettings, WriteSettings

PATCH_PX = 14  # the training layout's image sizes are multiples of the DINOv2 patch


SECTIONS: dict[str, type] = {"render": RenderSettings, "write": WriteSettings, "isolation": IsolationSettings}
ALIASES = {"from": "from_stage", "max_runtime": "max_runtime_s", "timeout": "timeout_s"}
# names and counts: more scenes of the same dataset are not another one, and plugins count by the hash of their source
NOT_IDENTITY = ("preset", "members", "plugins", "dataset_count", "scene_count")


@dataclass(frozen=True)
class Config:
    """All settings of one attribute of an experiment, checked."""

    content: ContentSettings
    render: RenderSettings
    write: WriteSettings
    isolation: IsolationSettings
    run: RunSettings
    factors: Mapping[str, Any]  # factor name → its settings
    plugin_hashes: Mapping[str, str]

    @property
    def attribute(self) -> str:
        return self.content.attribute

    def identity_record(self) -> dict[str, Any]:
        """Return what determines the dataset's bytes, as plain data (materials and pictures are hashed per scene)."""
        content = {k: v for k, v in to_plain(self.content).items() if k not in NOT_IDENTITY}
        return {
            "version": __version__,
            "content": content,
            "render": to_plain(self.render),
            "write": to_plain(self.write),
            "factors": {name: to_plain(value) for name, value in self.factors.items()},
            "plugins": dict(self.plugin_hashes),
        }

    def fingerprint(self) -> str:
        """Return the SHA-256 of ``identity_record``: two runs with the same one write the same dataset."""
        return content_hash(self.identity_record())

    def to_record(self) -> dict[str, Any]:
        """Return every setting as plain data, for the resolved-configuration file."""
        record = self.identity_record()
        record["content"] = to_plain(self.content)
        return record | {"isolation": to_plain(self.isolation), "run": to_plain(self.run)}


@dataclass(frozen=True)
class Experiment:
    """One run: its name, output folder, one Config per attribute, and the words it came from (for other machines)."""

    preset: str
    out: Path
    members: tuple[Config, ...]
    words: tuple[str, ...] = ()

    @property
    def run(self) -> RunSettings:
        return self.members[0].run


def resolve(words: Sequence[str]) -> Experiment:
    """Return the Experiment described by command-line words such as ``preset=geometry scenes=0-1 frames=4``.

    Raises ConfigError for an unknown preset or key (naming the nearest), a wrong type or an impossible value.
    """
    preset_name, layers, top = read_layers(words)
    configs = tuple(_build(_merge(layer, top), preset_name) for layer in layers)
    attributes = [c.attribute for c in configs]
    if len(set(attributes)) != len(attributes):
        raise ConfigError(
            f"preset={preset_name}: two members vary the same attribute ({', '.join(attributes)}), "
            "one folder cannot hold both"
        )
    out = Path(configs[0].run.out or Path("runs") / Path(preset_name).stem).absolute()
    return Experiment(Path(preset_name).stem, out, configs, tuple(words))


def read_layers(words: Sequence[str]) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """Return (preset name, one preset layer per member, the layer of file and words above them); loads their plugins.

    Plugins declare keys of their own, so they are loaded before any key is checked.
    """
    overrides = parse_words(words)
    file_layer = _read_yaml(Path(overrides.pop("config"))) if "config" in overrides else {}
    top = _merge(file_layer, overrides)
    name = str(top.get("preset", ContentSettings().preset))
    preset = load_preset(name)
    shared = {k: v for k, v in preset.items() if k != "attribute"}
    members = _merge(preset, top).get("members", ())
    layers = [_merge(load_preset(str(m)), shared) for m in members] or [preset]
    for layer in layers:
        load_plugins(_merge(layer, top).get("plugins", ()))
    return name, layers, top


def parse_words(words: Sequence[str]) -> dict[str, Any]:
    """Return nested settings from ``key=value`` words; values are YAML, a leading ``--`` is dropped."""
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} is not of the form key=value, e.g. preset=geometry; --help lists the keys")
        key = ALIASES.get(key, key)
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"]))
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise ConfigError(f"{word!r}: the value cannot be read ({str(error).splitlines()[0]})") from None
        settings = _merge(settings, typing.cast("dict[str, Any]", parsed))
    return settings


def preset_names() -> list[str]:
    """Return the names of the presets that ship."""
    return sorted(p.stem for p in resource_dir("presets").glob("*.yaml"))


def load_preset(name: str, _chain: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a preset's settings as nested dicts, its ``extends`` chain merged in."""
    if name in _chain:
        raise ConfigError(f"preset {name}: it extends itself ({' → '.join((*_chain, name))})")
    is_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else resource_dir("presets") / f"{name}.yaml"
    if not path.is_file():
        if is_path:
            raise ConfigError(f"preset={name}: there is no such file")
        raise ConfigError(
            f"preset={name}: unknown preset{_nearest(name, preset_names())}; known: {', '.join(preset_names())}"
        )
    layer = _read_yaml(path)
    parents = layer.pop("extends", [])
    base: dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        base = _merge(base, load_preset(_beside(path, parent), (*_chain, name)))
    if "plugins" in layer:
        layer["plugins"] = [_beside(path, str(plugin)) for plugin in layer["plugins"]]
    return _merge(base, layer)


def _beside(file: Path, name: str) -> str:
    """Return ``name`` as a path beside ``file`` if it is a relative one that exists there, else unchanged."""
    beside = file.absolute().parent / name
    return str(beside) if name.endswith((".py", ".yaml", ".yml")) and beside.is_file() else name


def schema() -> type:
    """Return the dataclass of all keys: content and run settings at the root, one section per factor and part."""
    fields: list[Any] = []
    for group in (ContentSettings, RunSettings):
        hints = typing.get_type_hints(group)
        fields += [(f.name, hints[f.name], _copied(f)) for f in dataclasses.fields(group)]
    sections = SECTIONS | {name: factor.settings for name, factor in registered().items()}
    fields += [(name, kind, dataclasses.field(default_factory=kind)) for name, kind in sections.items()]
    return dataclasses.make_dataclass("Settings", fields, frozen=True)


def _copied(field: dataclasses.Field[Any]) -> Any:
    return dataclasses.field(default=field.default, metadata=field.metadata)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(content).__name__}")
    return content or {}


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` on top; dicts merge, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _all_keys(kind: type, prefix: str = "") -> list[str]:
    hints = typing.get_type_hints(kind)
    keys = []
    for field in dataclasses.fields(kind):
        keys.append(prefix + field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            keys += _all_keys(hints[field.name], f"{prefix}{field.name}.")
    return keys


def _nearest(word: str, known: Sequence[str]) -> str:
    """Return " (did you mean ...?)" for the nearest known word, or an empty string."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if not matches and "." in word:
        matches = difflib.get_close_matches(word.rpartition(".")[2], known, n=1, cutoff=0.4)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _check_keys(settings: Mapping[str, Any], kind: type, prefix: str = "") -> None:
    """Raise ConfigError for the first key of ``settings`` that ``kind`` does not declare."""
    hints = typing.get_type_hints(kind)
    for key, value in settings.items():
        full = f"{prefix}{key}"
        if key not in hints:
            raise ConfigError(f"unknown key {full}{_nearest(full, _all_keys(schema()))}; --help lists all keys")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{full}={value}: this is a section, set one of its keys, e.g. {full}.<key>=...")
            _check_keys(value, typing.cast(type, hints[key]), f"{full}.")


def _build(settings: Mapping[str, Any], preset_name: str) -> Config:
    kind = schema()
    settings = {k: v for k, v in settings.items() if k != "config"} | {"preset": Path(preset_name).stem}
    _check_keys(settings, kind)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), settings)
        assert isinstance(merged, DictConfig)
        plain = OmegaConf.to_container(merged, resolve=True)
        checked = from_plain(kind, plain, "settings")
    except ConfigKeyError as error:
        raise ConfigError(f"unknown key {error.full_key}{_nearest(str(error.full_key), _all_keys(kind))}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(_misfit(kind, settings) or str(error).splitlines()[0]) from None
    except DatasetError as error:
        raise ConfigError(str(error).removeprefix("settings.")) from None
    check(checked, "")
    config = Config(
        content=_part(ContentSettings, checked),
        run=_part(RunSettings, checked),
        render=checked.render,
        write=checked.write,
        isolation=checked.isolation,
        factors={name: getattr(checked, name) for name in registered()},
        plugin_hashes=load_plugins(checked.plugins),
    )
    _check_config(config)
    return config


def _misfit(kind: type, settings: Mapping[str, Any], prefix: str = "") -> str:
    """Return "key=value: what is wrong" for the first value that does not fit; OmegaConf's errors may name no key."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            if text := _misfit(kind, value, f"{prefix}{key}."):
                return text
            continue
        leaf = OmegaConf.create()
        OmegaConf.update(leaf, f"{prefix}{key}", value)
        try:
            OmegaConf.merge(OmegaConf.structured(kind), leaf)
        except OmegaConfBaseException as error:
            return f"{prefix}{key}={value}: {str(error).splitlines()[0]}"
    return ""


def _part(kind: Any, values: Any) -> Any:
    return kind(**{f.name: getattr(values, f.name) for f in dataclasses.fields(kind)})


def _check_config(config: Config) -> None:
    """Raise ConfigError for combinations that cannot work, as opposed to single values."""
    content, render = config.content, config.render
    if not content.attribute:
        raise ConfigError(f"preset={content.preset}: it names no attribute; add `attribute: <name>` to the preset")
    if not content.attribute.replace("_", "").isalnum():
        raise ConfigError(f"attribute={content.attribute}: use letters, digits and _, it becomes a folder name")
    if content.training_layout and (render.width_px % PATCH_PX or render.height_px % PATCH_PX):
        raise ConfigError(
            f"render.width_px={render.width_px}, render.height_px={render.height_px}: the training layout needs "
            f"multiples of {PATCH_PX} (518 = 37 × {PATCH_PX}); choose such a size or set training_layout=false"
        )
    for name, settings in config.factors.items():
        validate = getattr(settings, "validate", None)
        if validate is not None:
            validate(name, config.factors)
