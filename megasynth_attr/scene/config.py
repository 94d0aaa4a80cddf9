"""A preset plus ``key=value`` words become one checked, frozen Config per attribute.

Precedence: defaults < preset (with ``extends``) < ``config=file.yaml`` < command line. Every key is declared once, in a
dataclass, with its default, meaning and limits; the keys of a factor live with the factor.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasynth_attr import __version__
from megasynth_attr.core.codec import content_hash, to_plain
from megasynth_attr.core.command.keys import nearest, short_words
from megasynth_attr.core.command.layers import merge, read_preset, take_config
from megasynth_attr.core.command.settings import fill
from megasynth_attr.core.command.words import parse_words, shown
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import identity_of, recorded_identity, shared_values
from megasynth_attr.core.names import is_attribute
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.core.stages import section_names
from megasynth_attr.scene.factor import load_plugins, registered
from megasynth_attr.scene.settings import ContentSettings, IsolationSettings, RenderSettings, RunSettings, WriteSettings

PHOTOGRAPHS = {"clearpose"}  # downstream data that are no preset's: nothing is rendered
PATCH_PX = 14  # the training layout's image sizes are multiples of the DINOv2 patch
SECTIONS: dict[str, type] = {"render": RenderSettings, "write": WriteSettings, "isolation": IsolationSettings}


@dataclass(frozen=True)
class Config:
    """All settings of one attribute of an experiment, checked."""

    content: ContentSettings
    render: RenderSettings
    write: WriteSettings
    isolation: IsolationSettings
    run: RunSettings
    factors: Mapping[str, Any]  # factor name → its settings; a factor that is off is absent
    plugin_hashes: Mapping[str, str]  # of plugins that declare a factor which is on

    @property
    def attribute(self) -> str:
        return self.content.attribute

    def identity_record(self) -> dict[str, Any]:
        """Return what determines the dataset's bytes, as plain data (materials and pictures are hashed per scene)."""
        return {
            "version": __version__,
            "content": identity_of(self.content),
            "render": identity_of(self.render),
            "write": identity_of(self.write),
            "factors": {name: identity_of(value) for name, value in self.factors.items()},
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


def fingerprinted(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a fingerprint is the hash of; ``record``: a ``to_record`` read back, of any version."""
    content = recorded_identity(ContentSettings, record.get("content", {}))
    keys = ("version", "render", "write", "factors", "plugins")
    return {key: record[key] for key in keys if key in record} | {"content": content}


def dataset_identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a dataset's bytes, by the command line's keys; ``record``: a ``to_record`` read back.

    Of paths only the last part: from another machine the same folder may be reached by another path.
    """
    content = recorded_identity(ContentSettings, record.get("content", {}))
    rest = {key: record.get(key) for key in ("version", "render", "write", "plugins")}
    known = {name: factor.settings for name, factor in registered().items()}
    factors = {
        name: _without_places(known[name], recorded_identity(known[name], values)) if name in known else values
        for name, values in record.get("factors", {}).items()
    }
    return {**content, **rest, **factors}


def _without_places(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    paths = {field.name for field in dataclasses.fields(kind) if field.metadata.get("path")}
    return values | {key: Path(values[key]).name for key in paths & values.keys() if isinstance(values[key], str)}


@dataclass(frozen=True)
class Experiment:
    """One run: its name, output folder, one Config per attribute, and the words it came from (for other machines).

    ``downstream``: the data on which adaptation is compared; ``across``: on whose last datasets it is tested as well;
    ``photographs``: folders of data that are compared on without being rendered, by name. ``sections``: the settings of
    stages that are not built in, by section, unchecked: no byte of any dataset depends on them.
    """

    preset: str
    out: Path
    members: tuple[Config, ...]
    downstream: Config | None = None
    across: tuple[Config, ...] = ()
    photographs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    words: tuple[str, ...] = ()
    sections: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def configs(self) -> tuple[Config, ...]:
        """Return all that is to be generated: the members, then the downstream data."""
        downstream = () if self.downstream is None else (self.downstream,)
        return (*self.members, *downstream, *self.across)

    @property
    def run(self) -> RunSettings:
        return self.members[0].run


def resolve(words: Sequence[str]) -> Experiment:
    """Return the Experiment described by command-line words such as ``preset=geometry scenes=0-1 frames=4``.

    Raises ConfigError for an unknown preset or key (naming the nearest), a wrong type or an impossible value.
    """
    layers = read_layers(words)
    preset_name = layers.preset
    configs = tuple(_build(layer, preset_name) for layer in layers.configs)
    attributes = [c.attribute for c in configs]
    if len(set(attributes)) != len(attributes):
        raise ConfigError(
            f"preset={preset_name}: two members vary the same attribute ({', '.join(attributes)}); "
            "one folder cannot hold both"
        )
    out = Path(configs[0].run.out or Path("runs") / Path(preset_name).stem).absolute()
    members, (downstream, *across) = configs, (None,)
    if layers.downstream:
        members, (downstream, *across) = configs[: -layers.downstream], configs[-layers.downstream :]
    for config in (downstream, *across) if layers.scanned else ():
        assert config is not None
        if config.factors["geometry"].layout != "scan":
            raise ConfigError(
                f"downstream: the preset that varies {config.attribute} renders no meshes of a folder; name it with "
                "downstream=PRESET"
            )
    return Experiment(
        Path(preset_name).stem,
        out,
        members,
        downstream,
        tuple(across),
        layers.photographs,
        tuple(words),
        layers.sections,
    )


@dataclass(frozen=True)
class Layers:
    """Unchecked settings (preset, file and words merged): of each attribute, downstream data last, and of stages.

    ``downstream``: how many of ``configs`` are downstream data; ``scanned``: they were given as folders of meshes.
    """

    preset: str
    configs: tuple[dict[str, Any], ...]
    sections: Mapping[str, Mapping[str, Any]]
    downstream: int
    scanned: bool = False
    photographs: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_layers(words: Sequence[str]) -> Layers:
    """Return the unchecked settings of the words and of the presets they name; loads the plugins of the words.

    Plugins declare keys of their own, so they are loaded before any key is checked. ConfigError if only a file names
    one: whoever uses a stranger's preset does not mean to run a stranger's program.
    """
    own = parse_words(words, short_words(RunSettings))
    top = take_config(own)
    name = _chosen(top, "preset").preset
    preset = load_preset(name)
    whole = merge(preset, top)
    scans, photographs = _take_folders(whole)
    for layer in (preset, top) if scans or photographs else ():
        layer.pop("downstream", None)
    choice = _chosen(whole, "members", "downstream", "downstream_count")
    of_stages = section_names()
    sections = {section: whole[section] or {} for section in sorted(of_stages & whole.keys())}
    for section, values in sections.items():
        if not isinstance(values, Mapping):
            raise ConfigError(f"{section}={shown(values)}: this is a section; --help {section} lists its keys")
    shared = {k: v for k, v in preset.items() if k != "attribute"}
    members = [merge(merge(load_preset(member), shared), top) for member in choice.members] or [whole]
    chosen = scans or ({choice.downstream: {}} if choice.downstream else {})
    for i, (downstream, given) in enumerate(chosen.items()):  # with its own number of datasets, all selected if first
        base = merge(load_preset(downstream), shared if choice.members else {})
        last = str(choice.downstream_count - 1)
        own = {"dataset_count": choice.downstream_count, "datasets": last if i else RunSettings().datasets}
        members.append(merge(merge(merge(base, {k: v for k, v in top.items() if k != "attribute"}), given), own))
    plugins = dict.fromkeys(item for member in members for item in _chosen(member, "plugins").plugins)
    if plugins and "plugins" not in own:
        raise ConfigError(
            f"a preset or config= names the plugin {', '.join(plugins)}: plugins are programs, so only the words of a "
            "run may name them; if you trust it, add plugins=[path/to/file.py]"
        )
    load_plugins(plugins)
    checkable = tuple({k: v for k, v in member.items() if k not in of_stages} for member in members)
    return Layers(name, checkable, sections, len(chosen), bool(scans), photographs)


def _take_folders(whole: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Take ``downstream`` out of ``whole`` if it is a table of presets, each with the folder of its meshes.

    Returns the settings over each preset, which may be given in the folder's place, and the folders of photographs.
    """
    table = whole.get("downstream")
    if not isinstance(table, Mapping):
        return {}, {}
    del whole["downstream"]
    given = dict(table)
    if empty := [name for name, value in given.items() if not isinstance(value, Mapping) and not str(value or "")]:
        raise ConfigError(f"downstream.{empty[0]}= is empty: name the folder of its data, or leave it out")
    for name in PHOTOGRAPHS & given.keys():
        if isinstance(given[name], Mapping):
            raise ConfigError(f"downstream.{name}.{next(iter(given[name]), '')}: downstream.{name}= names a folder")
        if len(given) > 1:
            raise ConfigError(
                f"downstream.{name}= is a comparison of its own and cannot be given with downstream."
                f"{next(other for other in given if other != name)}=; make it afterwards, with the same "
                "subspaces, by the training half's program compare with basis="
            )
    photographs = {name: str(given[name]) for name in PHOTOGRAPHS & given.keys()}
    scans = {
        name: dict(value) if isinstance(value, Mapping) else {"geometry": {"scan_folder": value}}
        for name, value in given.items()
        if name not in PHOTOGRAPHS
    }
    return scans, photographs


def _chosen(layer: Mapping[str, Any], *keys: str) -> ContentSettings:
    """Return those ``keys`` of an unchecked layer that say what else there is to read; the others are defaults."""
    return fill(ContentSettings, {key: layer[key] for key in keys if key in layer})


def preset_names() -> list[str]:
    """Return the names of the shipped presets."""
    return sorted(p.stem for p in resource_dir("presets").glob("*.yaml"))


def load_preset(name: str) -> dict[str, Any]:
    """Return a preset's settings as nested dicts, its ``extends`` chain merged in."""
    return read_preset(name, preset_file)


def preset_file(name: str) -> Path:
    """Return the file of a shipped preset, or the file a name ending in .yaml names; ConfigError if there is none."""
    is_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else resource_dir("presets") / f"{name}.yaml"
    if path.is_file():
        return path
    if is_path:
        raise ConfigError(f"preset={shown(name)}: there is no such file")
    known = preset_names()
    raise ConfigError(f"preset={shown(name)}: unknown preset{nearest(name, known)}; known: {', '.join(known)}")


def schema() -> type:
    """Return the dataclass of all keys: content and run settings at the root, one section per factor and part."""
    sections = SECTIONS | {name: factor.settings for name, factor in registered().items()}
    return _schema(tuple(sections.items()))


@functools.cache
def _schema(sections: tuple[tuple[str, type], ...]) -> type:
    fields = [(name, kind, dataclasses.field(default_factory=kind)) for name, kind in sections]
    return dataclasses.make_dataclass("Settings", fields, bases=(RunSettings, ContentSettings), frozen=True)


def _build(settings: Mapping[str, Any], preset_name: str) -> Config:
    kind = schema()
    checked: Any = fill(kind, dict(settings) | {"preset": Path(preset_name).stem})
    chosen = {name: getattr(checked, name) for name in registered()}
    factors = {name: value for name, value in chosen.items() if not registered()[name].is_off(value)}
    plugins = {
        n: p.sha256 for n, p in load_plugins(checked.plugins).items() if not factors.keys().isdisjoint(p.factors)
    }
    config = Config(
        content=ContentSettings(**shared_values(ContentSettings, checked)),
        run=RunSettings(**shared_values(RunSettings, checked)),
        render=checked.render,
        write=checked.write,
        isolation=checked.isolation,
        factors=factors,
        plugin_hashes=plugins,
    )
    _check_config(config)
    return config


def _check_config(config: Config) -> None:
    """Raise ConfigError for combinations that cannot work, as opposed to single values."""
    content, render = config.content, config.render
    if not content.attribute:
        raise ConfigError(f"preset={content.preset}: it names no attribute; add `attribute: <name>` to the preset")
    if not is_attribute(content.attribute):
        raise ConfigError(f"attribute={shown(content.attribute)}: use letters, digits and _; it becomes a folder name")
    if render.denoiser_device == "gpu" and config.run.device == "cpu":
        raise ConfigError("render.denoiser_device=gpu: this run renders on the CPU; choose a GPU with device=")
    if content.training_layout and (render.width_px % PATCH_PX or render.height_px % PATCH_PX):
        raise ConfigError(
            f"render.width_px={render.width_px}, render.height_px={render.height_px}: the training layout needs "
            f"multiples of {PATCH_PX} (518 = 37 × {PATCH_PX}); choose such a size or set training_layout=false"
        )
    if content.attribute in registered().keys() - config.factors.keys():
        raise ConfigError(
            f"attribute={content.attribute}: the factor of that name is off because all its settings are defaults; "
            f"set some of them, e.g. in the preset's section `{content.attribute}:`"
        )
    for name, settings in config.factors.items():
        validate = getattr(settings, "validate", None)
        if validate is not None:
            validate(name, config.factors)
