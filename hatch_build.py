"""The README as an index of packages shows it: links into this repository lead nowhere there, so their words remain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_INSIDE = r"\((?!https?:|mailto:)[^)\s]+\)"
_PICTURE = re.compile(rf"^!\[[^\]]*\]{_INSIDE}\n\n?", re.MULTILINE)
_LINK = re.compile(rf"\[([^\]]+)\]{_INSIDE}")


class CustomMetadataHook(MetadataHookInterface):
    """What pyproject.toml calls ``[tool.hatch.metadata.hooks.custom]``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": _LINK.sub(r"\1", _PICTURE.sub("", text)),
        }
