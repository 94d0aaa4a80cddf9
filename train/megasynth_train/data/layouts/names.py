"""What ``format=`` takes; apart from the readers, so that settings need not import them."""

from __future__ import annotations

AUTO, OURS = "auto", "megasynth-attr"
FORMATS = (AUTO, OURS, "paper", "nerfstudio", "colmap", "wai", "scannet", "clearpose")
