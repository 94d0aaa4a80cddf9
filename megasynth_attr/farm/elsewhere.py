"""The words of a run as other machines are given them: all paths absolute, so that they hold in any folder."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from megasynth_attr.core.command.keys import declared, sections, short_words
from megasynth_attr.core.command.layers import read_preset
from megasynth_attr.core.command.reading import read_text
from megasynth_attr.core.command.words import split
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import names_path
from megasynth_attr.core.resources import resource_dir
from megasynth_attr.core.run_folder import differences
from megasynth_attr.core.stages import section_names
from megasynth_attr.farm.slurm import MOST_JOBS, SCENES_PER_JOB
from megasynth_attr.farm.tasks import select
from megasynth_attr.scene.config import Config, Experiment, dataset_identity, preset_file, resolve, schema

# given by who hands out
OWN_KEYS = ("shard", "stages", "from_stage", "executor", "detach", "out", "openjd_progress", "plan")
FINISH = ("stages=generate,verify,report", "executor=local")  # after all shards: generate completes dataset.json
_PLAIN = re.compile(r"[\w./-]+")


@dataclass(frozen=True)
class Given:
    """One word: ``key=text``, or ``key=[text,text]``. ``paths`` says which texts are paths: "file", "folder" or ""."""

    key: str
    texts: tuple[str, ...]
    paths: tuple[str, ...] = ("",)
    is_list: bool = False
    meaning: str = ""  # of the key, if there are paths

    def __str__(self) -> str:
        return self.word(self.texts)

    def word(self, texts: Sequence[str]) -> str:
        """Return the word with other texts, e.g. the names of parameters, in their place."""
        items = [text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "''") + "'" for text in texts]  # of YAML
        return f"{self.key}={'[' + ','.join(items) + ']' if self.is_list else texts[0]}"


class _Key(NamedTuple):
    field: Any
    hint: Any


def portable(experiment: Experiment) -> list[Given]:
    """Return the experiment's words without ``OWN_KEYS`` and the keys of other stages, whose packages may be missing.

    Every path in them is absolute, and so are those that its files name in relation to the current folder. Raises
    ConfigError if the words would describe another experiment in another folder.
    """
    keys, short = _keys(), short_words(schema())
    unwanted = {*OWN_KEYS, *section_names()}
    given = [_given(word, short, keys) for word in experiment.words]
    given = [one for one in given if one.key.partition(".")[0] not in unwanted]
    given += _of_files(experiment, keys, {one.key for one in given})
    _require_same(experiment, [str(one) for one in given])
    return given


def run_words(shard: str) -> list[str]:
    """Return the words that make a run on another machine render one shard (``i/n``)."""
    return ["stages=generate", f"shard={shard}", "executor=local"]


def shard_count(experiment: Experiment, wanted: int) -> int:
    """Return the number of shards, 0: one per ten scenes; ConfigError if there are fewer scenes than shards."""
    scenes = len(select(experiment))
    if wanted > scenes:
        raise ConfigError(f"shards={wanted}: only {scenes} scenes are selected; give at most as many shards")
    return wanted or max(1, min(MOST_JOBS, math.ceil(scenes / SCENES_PER_JOB)))


def require_all_shards(experiment: Experiment) -> None:
    """Raise ConfigError for ``shard=``: who hands out shards makes them all."""
    if experiment.run.shard != "1/1":
        raise ConfigError(f"shard={experiment.run.shard}: all shards are written here; leave it out, or choose scenes=")


def files_read(given: Sequence[Given]) -> list[Path]:
    """Return the YAML files of the user's that words name: presets, those they extend, ``config=``."""
    found: dict[Path, None] = {}

    def find(name: str) -> Path:
        path = preset_file(name).absolute()
        found[path] = None
        return path

    for one in given:
        for text, path in zip(one.texts, one.paths, strict=True):
            if one.key == "config":
                found[Path(text)] = None
            elif path and text.endswith((".yaml", ".yml")):
                read_preset(text, find)
    return [path for path in found if not path.is_relative_to(resource_dir("presets"))]


def _keys() -> dict[str, _Key]:
    """Return the keys of the pipeline that name paths."""
    return {
        f"{prefix}{field.name}": _Key(field, hint)
        for prefix, kind in sections(schema())
        for field, hint in declared(kind)
        if field.metadata.get("path")
    }


def _given(word: str, short: Mapping[str, str], keys: Mapping[str, _Key]) -> Given:
    key, text = split(word)
    key = short.get(key, key)
    if key == "config":
        return Given(key, (str(Path(text).absolute()),), ("file",), meaning="settings between the preset and the words")
    if key in keys:
        plain = read_text(keys[key].hint, text)
        found = _located(key, keys[key], plain if isinstance(plain, list) else [plain])
        if any(found.paths):
            return found
    return Given(key, (text,))


def _located(key: str, key_of: _Key, texts: Sequence[str]) -> Given:
    """Return a word whose texts that are paths are absolute."""
    meta = key_of.field.metadata
    paths = tuple(meta["path"] * names_path(key_of.field, text) for text in texts)
    full = tuple(str(Path(text).absolute()) if path else text for text, path in zip(texts, paths, strict=True))
    return Given(key, full, paths, is_list=key_of.hint is not str, meaning=meta["help"])


def _of_files(experiment: Experiment, keys: Mapping[str, _Key], given: Set[str]) -> Iterator[Given]:
    """Yield words for paths that presets or ``config=`` name; ConfigError for relative ones that differ by member."""
    for key in sorted(keys.keys() - given - set(OWN_KEYS)):
        values = [_value(config, key) or () for config in experiment.configs]
        found = [_located(key, keys[key], [one] if isinstance(one, str) else one) for one in values]
        if all(one == found[0] for one in found):
            yield from (one for one in found[:1] if any(one.paths))
            continue
        for one, value in zip(found, values, strict=True):
            if one.texts != tuple([value] if isinstance(value, str) else value):
                raise ConfigError(f"{one} is relative to this folder in a preset or file; make it absolute there")


def _value(config: Config, key: str) -> Any:
    """Return the value of a key in a resolved configuration, None if its factor is off."""
    record = config.to_record()
    section, _, name = key.rpartition(".")
    place = record["content"] | record["run"] if not section else (record | record["factors"]).get(section, {})
    return place.get(name)


def _require_same(experiment: Experiment, words: Sequence[str]) -> None:
    """Raise ConfigError unless ``words`` describe the same datasets in another folder."""
    advice = "name files by absolute paths, also in presets and in config="
    try:
        with contextlib.chdir("/"):
            there = resolve(words)
    except ConfigError as error:
        raise ConfigError(f"in another folder these words would be refused: {error}; {advice}") from None
    identities = [[dataset_identity(config.to_record()) for config in one.configs] for one in (experiment, there)]
    if found := "; ".join(filter(None, map(differences, *identities))):
        raise ConfigError(f"in another folder these words would describe other datasets: {found}; {advice}")
