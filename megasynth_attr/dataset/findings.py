"""What verification says: single findings, facts per scene, and the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from megasynth_attr.dataset.reprojection import PairResult

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (``severity`` "error") or worth knowing ("warning")."""

    severity: str
    check: str  # files, scene, cameras, …: a key of MEANING in report/checks.py, which explains it
    where: str  # scene name, file or ""
    message: str


@dataclass
class SceneFacts:
    """What one scene's files say; all that the checks across scenes need. ``check_scene`` fills it in."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)  # factor → hash; empty if the scene file is unreadable
    identities: dict[str, str] = field(default_factory=dict)  # of its materials
    blender: str = ""  # version
    depth_digests: list[str] = field(default_factory=list)
    frames: int = 0
    bytes: int = 0
    nearest_surface: float = np.inf  # smallest distance camera–surface along a pixel's ray, scene units
    clipped_frames: int = 0
    black_frames: int = 0
    empty_frames: int = 0
    pairs: list[tuple[int, int, PairResult]] = field(default_factory=list)  # first frame, second frame, agreement


@dataclass(frozen=True)
class VerifyReport:
    """The outcome for one dataset. ``passed`` if no finding is an error; having no scene is one."""

    dataset: str
    scenes: int
    scene_count: int
    frames: int
    bytes: int
    findings: tuple[Finding, ...]
    clearance_required: float
    nearest_surface: float | None
    clipped_share: float  # frames with more than 20 % clipped foreground pixels
    black_share: float  # frames with more than 60 % black foreground pixels
    covisible_pixels: int
    agreeing_share: float | None  # of the co-visible pixels, within 0.5 %
    shift_x_px: float | None  # common error of all principal points; None: cannot be told from these views
    shift_y_px: float | None
    depth_factor: float | None
    depth_groups: int  # groups of scenes whose depth must be equal byte for byte
    depth_compared: dict[str, int]  # factor → in how many of these groups it differs between scenes
    distinct_hashes: dict[str, int]  # factor → number of different values among the scenes

    @property
    def passed(self) -> bool:
        return not any(finding.severity == ERROR for finding in self.findings)

    @property
    def verdict(self) -> str:
        """Return "passed" for a dataset that is complete, "passed for 2 of 200 scenes" for a part, or "FAILED"."""
        part = "" if self.scenes == self.scene_count else f" for {self.scenes} of {self.scene_count} scenes"
        return f"passed{part}" if self.passed else "FAILED"

    def to_record(self) -> dict[str, Any]:
        """Return everything as plain data, for verify.json."""
        return {"format": "megasynth-attr verify 1", "passed": self.passed} | dataclasses.asdict(self)

    def table(self, limit: int = 20) -> str:
        """Return a short text for people: one line per measure, then the findings."""
        agreeing = "–" if self.agreeing_share is None else f"{self.agreeing_share:.3%}"
        surface = "–" if self.nearest_surface is None else f"{self.nearest_surface:.3f}"
        exposure = f"{self.clipped_share:.2%} of frames clipped, {self.black_share:.2%} black (expected < 1 %)"
        rows = [
            ("dataset", f"{self.dataset}: {self.verdict}"),
            ("scenes", f"{self.scenes} of {self.scene_count}, {self.frames} frames, {self.bytes / 1e6:.1f} MB"),
            ("different", ", ".join(f"{name} {count}" for name, count in sorted(self.distinct_hashes.items()))),
            ("equal depth", depth_in_words(self.depth_groups, self.depth_compared) or NOTHING_COMPARED),
            ("clearance", f"nearest surface {surface}, required {self.clearance_required:g}"),
            ("exposure", exposure if self.frames else "– (no frame was read)"),
            ("reprojection", f"{agreeing} of {self.covisible_pixels} co-visible pixels agree (required 99 %)"),
            ("cameras", f"common shift {_shown(self.shift_x_px)}, {_shown(self.shift_y_px)} px; "
             f"depth factor {_shown(self.depth_factor, 5)}"),
        ]  # fmt: skip
        lines = [f"{name:>13}  {text}" for name, text in rows]
        for finding in self.findings[:limit]:
            place = f"{finding.where}: " if finding.where else ""
            lines.append(f"{finding.severity:>13}  {finding.check}: {place}{finding.message}")
        if len(self.findings) > limit:
            lines.append(f"{'':>13}  … and {len(self.findings) - limit} more, see verify.json")
        return "\n".join(lines)


NOTHING_COMPARED = "nothing compared: any two scenes differ in something that may change depth"


def depth_in_words(groups: int, compared: Mapping[str, int]) -> str | None:
    """Return what the check of equal depth compared; None if nothing."""
    if not groups:
        return None
    differing = ", ".join(sorted(name for name, count in compared.items() if count)) or "nothing"
    return f"{groups} group{'s' if groups > 1 else ''} of scenes compared byte for byte, differing in {differing}"


def _shown(value: float | None, digits: int = 3) -> str:
    return "not observable" if value is None else f"{value:.{digits}f}"
