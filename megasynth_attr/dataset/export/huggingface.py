"""A Hugging Face dataset folder: Parquet with pictures in it, a card, and Croissant metadata.

::

    <out>/README.md                                  the card; made from the files below (``card.py``)
    <out>/croissant.json
    <out>/data/<attribute>_<kk>/{train,val}-00000.parquet

One row per **view**; the views of a scene are neighbours. Parquet and not tar shards, as the Hub shows, filters and
streams it, rows are read in any order, and the columns have types: ``datasets.load_dataset(out, "<attribute>_<kk>")``
decodes pictures and, as NumPy, depth. Pictures are byte copies of the dataset's; arrays are float32 and exact. A layer
that a view has not (``flow_forward`` of the last one) is NaN, its occlusion 255. Files are written view by view.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.core.errors import DatasetError, importing
from megasynth_attr.core.files import read_json
from megasynth_attr.core.pictures import read_content
from megasynth_attr.dataset import paths
from megasynth_attr.dataset.export.derived import OCCLUDED, SUFFIXES, Derived, encoded
from megasynth_attr.dataset.paths import RENDER_ANEW
from megasynth_attr.dataset.reader import Dataset, SceneData, View

DATA = "data"
ABOUT = b"megasynth_attr"  # key of the metadata of each Parquet file that says what the dataset is
ROWS = 16  # of a row group, which is what a reader has in memory at least
VALUES = {"dataset": "string", "scene": "int32", "frame": "int32", "frames": "int32", "hashes": "string"}
SCALARS = {"string": "string", "int32": "int32", "float32": "float", "float64": "double"}  # theirs → Arrow's


def arrow() -> tuple[Any, Any]:
    """Return PyArrow and its Parquet module; EnvironmentProblem if it is not installed."""
    with importing("format=huggingface needs the package pyarrow: pip install 'megasynth-attr[export]'"):
        import pyarrow
        from pyarrow import parquet
    return pyarrow, parquet


def columns(dataset: Dataset, derived: Derived) -> dict[str, Any]:
    """Return the columns as a card lists them: "image", the name of a type, or ``{"shape": […], "dtype": …}``."""
    render, write = dataset.recorded.config.render, dataset.recorded.config.write
    picture = (render.height_px, render.width_px)
    found: dict[str, Any] = {"image": "image", "depth": _array(*picture)}
    found |= {"normal": _array(*picture, 3)} if write.normal else {}
    found |= {"instance": "image"} if write.instance else {}
    found |= {"position": _array(*picture, 3)} if write.position else {}
    for way in ("forward", "backward") if derived.flow else ():
        found |= {f"flow_{way}": _array(*picture, 2), f"occlusion_{way}": "image"}
    found |= {"disparity": _array(*picture)} if derived.disparity else {}
    cameras = {"intrinsics": _array(3, 3, dtype="float64"), "camera_from_world": _array(4, 4, dtype="float64")}
    return found | cameras | VALUES


def _array(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"shape": list(shape), "dtype": dtype}


def write_shard(file: Path, dataset: Dataset, scenes: Sequence[SceneData], derived: Derived) -> None:
    """Write all views of ``scenes`` as the Parquet file ``file``."""
    pa, parquet = arrow()
    kinds = columns(dataset, derived)
    fields = [(name, _arrow_type(pa, kind)) for name, kind in kinds.items()]
    features = {name: _feature(kind) for name, kind in kinds.items()}
    about = json.dumps({"columns": kinds} | about_dataset(dataset))
    schema = pa.schema(fields, {b"huggingface": json.dumps({"info": {"features": features}}), ABOUT: about})
    floats = [name + ".list.element" * len(kind["shape"]) for name, kind in kinds.items() if isinstance(kind, dict)]
    with parquet.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=False, use_byte_stream_split=floats
    ) as writer:
        for scene in scenes:
            rows: list[dict[str, Any]] = []
            for row in _rows(dataset, scene, derived, kinds):
                rows.append(row)
                if len(rows) == ROWS:
                    writer.write_table(_table(pa, rows, schema, kinds))
                    rows = []
            if rows:
                writer.write_table(_table(pa, rows, schema, kinds))


def about_dataset(dataset: Dataset) -> dict[str, Any]:
    """Return what the card says of a dataset."""
    recorded, conventions = dataset.recorded, dataset.record.get("conventions")
    return {
        "attribute": dataset.attribute,
        "scopes": {name: factor.scope for name, factor in recorded.config.factors.items()},
        "fingerprint": recorded.fingerprint,
        "version": recorded.version or recorded.config.version,
        "conventions": conventions if isinstance(conventions, dict) else {},
        "licences": sorted({str(material.get("license", "")) for material in recorded.materials} - {""}),
    }


def _rows(dataset: Dataset, scene: SceneData, derived: Derived, kinds: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    render = dataset.recorded.config.render
    hashes = json.dumps(read_json(scene.file(paths.SCENE_FILE))["hashes"], sort_keys=True)
    views = scene.views
    if (views[0].height_px, views[0].width_px) != (render.height_px, render.width_px):
        raise DatasetError(f"{scene.file(paths.CAMERAS_FILE)}: the size is not that of dataset.json; {RENDER_ANEW}")
    for view, more in zip(views, derived.layers(views), strict=True):
        row: dict[str, Any] = {"dataset": dataset.name, "scene": scene.index, "frame": view.index}
        row |= {"frames": len(views), "hashes": hashes, "image": _picture(view, "rgb")}
        for name in kinds:
            if name in SUFFIXES:
                row[name] = _derived(name, more.get(name), view)
            elif name == "instance":
                row[name] = _picture(view, name)
            elif name not in row:
                row[name] = getattr(view, "depth_z" if name == "depth" else name)
                if row[name] is None:
                    raise DatasetError(f"{scene.path} has no layer {name}, which dataset.json lists; {RENDER_ANEW}")
        yield row


def _picture(view: View, layer: str) -> dict[str, Any]:
    content = read_content(view.file(layer), RENDER_ANEW)
    return {"bytes": content, "path": Path(paths.layer_file(layer, view.index)).name}


def _derived(name: str, array: np.ndarray | None, view: View) -> Any:
    """Return a derived layer as a cell, of a view that has it or not."""
    size = (view.height_px, view.width_px)
    if SUFFIXES[name] == ".png":
        hidden = np.full(size, OCCLUDED, np.uint8) if array is None else array
        return {"bytes": encoded(name, hidden), "path": f"{view.index:04d}.png"}
    return np.full((*size, 2), np.nan, np.float32) if array is None else array


def _table(pa: Any, rows: list[dict[str, Any]], schema: Any, kinds: Mapping[str, Any]) -> Any:
    """Return rows as an Arrow table."""
    arrays = []
    for name, kind in kinds.items():
        cells = [row[name] for row in rows]
        if isinstance(kind, dict):
            arrays.append(_nested(pa, np.stack(cells).astype(kind["dtype"])))
        else:
            arrays.append(pa.array(cells, schema.field(name).type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _nested(pa: Any, array: np.ndarray) -> Any:
    """Return an array as Arrow's lists of lists, one per row; without a Python object for every number."""
    values = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        values = pa.ListArray.from_arrays(np.arange(0, len(values) + 1, size, dtype=np.int32), values)
    return values


def _arrow_type(pa: Any, kind: Any) -> Any:
    if kind == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if isinstance(kind, str):
        return pa.type_for_alias(SCALARS[kind])
    nested = pa.type_for_alias(SCALARS[kind["dtype"]])
    for _ in kind["shape"]:
        nested = pa.list_(nested)
    return nested


def _feature(kind: Any) -> dict[str, Any]:
    """Return a column as the package ``datasets`` writes it into Parquet files."""
    if kind == "image":
        return {"_type": "Image"}
    if isinstance(kind, str):
        return {"dtype": kind, "_type": "Value"}
    return kind | {"_type": f"Array{len(kind['shape'])}D"}
