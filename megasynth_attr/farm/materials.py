"""What dataset.json says about the materials its scenes use."""

from __future__ import annotations

from megasynth_attr.farm.library import Library

FIELDS = ("name", "category", "license", "source", "identity")


def material_records(library: Library) -> list[dict[str, str]]:
    """Return name, category, licence, source and content hash of every material of the bank."""
    return [{key: str(getattr(record, key)) for key in FIELDS} for record in library.records.materials.values()]
