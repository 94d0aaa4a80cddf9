"""dataset.json as far as other parts of the project read it: checked for types and limits once, when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from megasynth_attr.core.codec import Part
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.fields import REQUIRED, read_part, setting
from megasynth_attr.core.names import checked, is_attribute
from megasynth_attr.core.streams import Scope


@dataclass(frozen=True)
class RecordedFactor(Part):
    """How often a factor was drawn."""

    scope: str = ""
    variants: int = setting(1, "", minimum=1)


@dataclass(frozen=True)
class RecordedContent(Part):
    """What the dataset contains; 0: not recorded."""

    attribute: str = ""
    scene_count: int = 0
    frames: int = setting(0, "", minimum=0, maximum=10_000)
    noise_scope: str = Scope.SCENE.value


@dataclass(frozen=True)
class ImageSize(Part):
    """Of every frame; 0: not recorded."""

    width_px: int = setting(0, "", minimum=0, maximum=65_536)
    height_px: int = setting(0, "", minimum=0, maximum=65_536)


@dataclass(frozen=True)
class RecordedWrite(Part):
    """The layers that are written, besides RGB and depth."""

    depth: str = setting("float32", "", options=["float32", "float16"])
    normal: bool = False
    instance: bool = False
    position: bool = False


@dataclass(frozen=True)
class RecordedConfig(Part):
    """The settings; ``plugins`` maps the names of those that declare one of the factors to the SHA-256 of the file."""

    version: str = ""
    content: RecordedContent = field(default_factory=RecordedContent)
    render: ImageSize = field(default_factory=ImageSize)
    write: RecordedWrite = field(default_factory=RecordedWrite)
    factors: dict[str, RecordedFactor] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordedDataset(Part):
    """dataset.json without its list of scenes, which may be long: ``record_file`` reads that."""

    attribute: str
    dataset_index: int = setting(REQUIRED, "", minimum=0)
    scene_count: int = setting(REQUIRED, "", minimum=0, maximum=1_000_000)
    config: RecordedConfig = setting(REQUIRED, "")
    fingerprint: str = ""
    version: str = ""
    checksum: str = ""
    materials: tuple[dict[str, Any], ...] = ()


def read_recorded(record: Mapping[str, Any], where: str) -> RecordedDataset:
    """Return what dataset.json holds; DatasetError, beginning with ``where``, where it is not as it should be."""
    recorded = read_part(RecordedDataset, record, where)
    if not is_attribute(recorded.attribute):
        raise DatasetError(f"{where}: attribute: folders are named after it, so {recorded.attribute!r} is refused")
    for name in recorded.config.factors:
        checked(name, f"{where}: config.factors")
    return recorded
