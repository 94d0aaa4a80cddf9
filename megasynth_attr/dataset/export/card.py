"""The card (README.md) and the Croissant metadata of a Hugging Face folder, made from its Parquet files.

Both describe all datasets in the folder, and are written anew after each export into it. The Croissant file follows
version 1.1 of its format (https://docs.mlcommons.org/croissant): a file set and a record set per dataset and split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from megasynth_attr.core.errors import DatasetError, printable
from megasynth_attr.core.files import json_bytes, open_regular
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.export.huggingface import ABOUT, DATA, arrow
from megasynth_attr.dataset.export.target import Target

CARD, CROISSANT = "README.md", "croissant.json"
SIZES = {"n<1K": 10**3, "1K<n<10K": 10**4, "10K<n<100K": 10**5, "100K<n<1M": 10**6, "1M<n<10M": 10**7}  # rows, below
LARGEST = "10M<n<100M"
DERIVED = {
    "flow": "pixels (x right, y down): place in the next (backward: previous) view minus place in this one; NaN = none",
    "occlusion": "255 where the other view does not see the surface, or there is none; else 0",
    "disparity": "stereo disparity f·b/z in pixels, second camera to the right; 0 = no surface",
}
CITATION = """@software{megasynth_attr,
  title = {MegaSynth-Attr},
  author = {{The MegaSynth-Attr contributors}},
  note = {Procedural multi-view RGB-D datasets in which one attribute varies}
}"""
TERMS = (
    *("arrayShape", "citeAs", "column", "containedIn", "extract", "field", "fileObject", "fileProperty", "fileSet"),
    *("format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
    *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
CONTEXT = {name: f"cr:{name}" for name in TERMS} | {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": {"@id": "cr:equivalentProperty", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}


@dataclass(frozen=True)
class Split:
    """The files of one split of a dataset, taken together."""

    dataset: str
    name: str
    rows: int
    bytes: int
    about: dict[str, Any]

    @property
    def pattern(self) -> str:
        return f"{DATA}/{self.dataset}/{self.name}-*.parquet"


def write_card(target: Target, license: str) -> None:
    """Write README.md and croissant.json for what is in the folder; ``license`` is an identifier of the Hub's."""
    splits = read_splits(target.out)
    contents = {CARD: _card(splits, license).encode(), CROISSANT: json_bytes(_croissant(splits, license))}
    for name, content in contents.items():
        with target.new_piece(name) as file:
            file.write_bytes(content)


def read_splits(out: Path) -> list[Split]:
    """Return the splits of all datasets in a folder, from the ends of its Parquet files.

    DatasetError if one is damaged.
    """
    _, parquet = arrow()
    found: dict[tuple[str, str], Split] = {}
    for file in sorted((out / DATA).glob("*/*.parquet")):
        key = file.parent.name, file.name.rpartition("-")[0]
        try:
            with open_regular(file) as stored:
                metadata = parquet.read_metadata(stored)
            about = json.loads(metadata.metadata[ABOUT])
        except (OSError, ValueError, TypeError, KeyError) as error:  # PyArrow's are ValueError or OSError
            raise DatasetError(
                f"{file} is damaged, or was not written by this command ({error}); delete it, then run the same "
                "command again"
            ) from None
        before = found.get(key, Split(*key, 0, 0, about))
        size = before.bytes + file.stat().st_size
        found[key] = Split(*key, before.rows + metadata.num_rows, size, before.about)
    return list(found.values())


def _card(splits: list[Split], license: str) -> str:
    names = sorted({split.dataset for split in splits})
    rows = sum(split.rows for split in splits)
    header = {
        "license": license,
        **({"license_name": "not-stated", "license_link": f"{CARD}#licence"} if license == "other" else {}),
        "pretty_name": f"MegaSynth-Attr: {', '.join(names)}",
        "size_categories": [size_category(rows)],
        "task_categories": ["depth-estimation", "image-to-3d"],
        "tags": ["synthetic", "multi-view", "rgb-d", "blender", "megasynth-attr"],
        "configs": [_config([s for s in splits if s.dataset == name]) for name in names],
        "dataset_info": [_info([s for s in splits if s.dataset == name]) for name in names],
    }
    first = splits[0].about
    conventions = "\n".join(f"| {_plain(key)} | {_plain(text)} |" for key, text in _conventions(first).items())
    table = "\n".join(f"| {s.dataset} | {s.about['attribute']} | {s.name} | {s.rows:,} |" for s in splits)
    licences = sorted({_plain(licence) for split in splits for licence in split.about["licences"]})
    stated = f"The data: {license}." if license != "other" else "None is stated: ask whoever published the data."
    return f"""---
{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---

# {header["pretty_name"]}

Multi-view RGB-D pictures of procedural scenes with exact depth and cameras. In each dataset **one attribute varies**
from scene to scene and everything else is fixed.

| dataset | what varies | split | views |
|---|---|---|---|
{table}

## Use

```python
from datasets import load_dataset

views = load_dataset("<this folder or repository>", "{names[0]}", split="{splits[0].name}").with_format("numpy")
views[0]["image"], views[0]["depth"], views[0]["intrinsics"], views[0]["camera_from_world"]
```

One row is one view; the views of a scene follow each other (`scene`, `frame`, `frames`). `hashes` names the data of
each factor of the scene: two scenes with equal hashes share that factor.

## Conventions

| | |
|---|---|
{conventions}

## How it was made

With MegaSynth-Attr {_plain(first["version"])}: scenes are drawn, then rendered by
Blender; depth is taken unfiltered at pixel centres. Drawn anew for every scene: {_drawn(splits)}. Fingerprints of the
settings: {", ".join(f"{s.dataset} `{_plain(s.about['fingerprint'][:16])}`" for s in splits)}.

## Licence

{stated} Materials in the pictures: {", ".join(licences) or "none recorded"}.

## Citation

```bibtex
{CITATION}
```
"""


def _conventions(about: Mapping[str, Any]) -> dict[str, str]:
    """Return what the columns hold, in the words of the dataset; of layers, without how its own files store them."""
    texts = {}
    for key, text in {**about["conventions"], **DERIVED}.items():
        name = {"rgb": "image"}.get(key, key)
        if key in paths.LAYERS:
            text = str(text).partition(": ")[2]
        if key not in (*paths.LAYERS, *DERIVED, "quaternion") or any(c.startswith(name) for c in about["columns"]):
            texts[name] = text
    return texts


def size_category(rows: int) -> str:
    """Return the Hub's name for a number of rows."""
    return next((name for name, limit in SIZES.items() if rows < limit), LARGEST)


def _plain(text: Any) -> str:
    """Return what a dataset says as text of the card: no markup, link or picture, and no way out of a table's cell."""
    return re.sub(r"[\\`|\[]", r"\\\g<0>", printable(" ".join(str(text).split()))).replace("<", "&lt;")


def _drawn(splits: list[Split]) -> str:
    drawn = {factor for split in splits for factor, scope in split.about["scopes"].items() if scope == "scene"}
    return ", ".join(map(_plain, sorted(drawn))) or "nothing"


def _config(splits: list[Split]) -> dict[str, Any]:
    files = [{"split": split.name, "path": split.pattern} for split in splits]
    return {"config_name": splits[0].dataset, "data_files": files}


def _info(splits: list[Split]) -> dict[str, Any]:
    features = [{"name": name, "dtype": _dtype(kind)} for name, kind in splits[0].about["columns"].items()]
    sizes = [{"name": split.name, "num_bytes": split.bytes, "num_examples": split.rows} for split in splits]
    return {"config_name": splits[0].dataset, "features": features, "splits": sizes}


def _dtype(kind: Any) -> Any:
    return {f"array{len(kind['shape'])}_d": kind} if isinstance(kind, dict) else kind


def _croissant(splits: list[Split], license: str) -> dict[str, Any]:
    names = sorted({split.dataset for split in splits})
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": "-".join(names),
        "description": f"Multi-view RGB-D pictures of procedural scenes; one attribute varies: {', '.join(names)}",
        "license": license,
        "citeAs": CITATION,
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": f"{split.dataset}-{split.name}-files",
                "encodingFormat": "application/x-parquet",
                "includes": split.pattern,
            }
            for split in splits
        ],
        "recordSet": [_record_set(split) for split in splits],
    }


def _record_set(split: Split) -> dict[str, Any]:
    identity = f"{split.dataset}-{split.name}"
    fields = [_field(identity, name, kind) for name, kind in split.about["columns"].items()]
    return {"@type": "cr:RecordSet", "@id": identity, "name": identity, "field": fields}


def _field(record_set: str, name: str, kind: Any) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": f"{record_set}-files"}, "extract": {"column": name}}
    found = {"@type": "cr:Field", "@id": f"{record_set}/{name}", "name": name, "source": source}
    if kind == "image":
        source["transform"] = {"jsonPath": "bytes"}
        return found | {"dataType": "sc:ImageObject"}
    if isinstance(kind, Mapping):
        shape = ",".join(str(size) for size in kind["shape"])
        return found | {"dataType": "sc:Float", "cr:isArray": True, "cr:arrayShape": shape}
    return found | {"dataType": "sc:Text" if kind == "string" else "sc:Integer"}
