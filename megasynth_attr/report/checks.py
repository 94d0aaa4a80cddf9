"""verify.json as a table: one line per check, with its outcome and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.core.files import read_json
from megasynth_attr.dataset.findings import depth_in_words

VERIFY_FORMAT = "megasynth-attr verify 1"
SHOWN_FINDINGS = 20
MEANING = {
    "completeness": "every planned scene is there",
    "record": "dataset.json agrees with itself, with the scenes, and with its checksum",
    "files": "files present, checksums equal",
    "scene": "scene files readable, hashes right",
    "cameras": "rotations orthonormal, pixels and depth agree",
    "values": "finite values, sizes as stated",
    "layers": "quantities of a frame agree with each other",
    "isolation": "only the intended factors differ",
    "equal depth": "factors that cannot change depth leave it equal to the byte",
    "clearance": "no surface too close to a camera",
    "exposure": "frames neither clipped nor black",
    "reprojection": "depth of one view fits the others",
}


@dataclass(frozen=True)
class Check:
    """One line: ``passed`` is None where that cannot be told, and ``open`` says why."""

    name: str
    meaning: str
    passed: bool | None
    warnings: int
    measured: str
    open: str = "no data"


@dataclass(frozen=True)
class Verification:
    """What the verify stage found."""

    passed: bool
    scenes: int  # that were checked
    planned: int
    checks: tuple[Check, ...]
    findings: tuple[Mapping[str, str], ...]  # the first 20: severity, check, where, message
    findings_count: int

    @property
    def is_complete(self) -> bool:
        """Return whether every planned scene was checked."""
        return self.scenes == self.planned

    @property
    def verdict(self) -> str:
        """Return the outcome in words."""
        part = "" if self.is_complete else f" for {self.scenes} of {self.planned} scenes"
        return f"passed{part}" if self.passed else "failed"


def read_verification(file: Path) -> Verification | None:
    """Return what verify.json says, None if there is none; DatasetError if it is damaged or of another version."""
    if not file.exists():
        return None
    record = read_json(file, VERIFY_FORMAT)
    try:
        findings = [{key: str(f[key]) for key in ("severity", "check", "where", "message")} for f in record["findings"]]
        measured = _measured(record)
        names = [*MEANING, *sorted({f["check"] for f in findings} - set(MEANING))]
        scenes, planned = int(record["scenes"]), int(record["scene_count"])
        checks = tuple(_check(name, findings, measured.get(name, "")) for name in names)
        checks = tuple(_as_far_as_seen(check, scenes, planned) for check in checks)
        passed = bool(record["passed"]) and scenes > 0
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{file}: the record is incomplete ({type(error).__name__}: {error}); run the verify stage again"
        ) from None
    return Verification(passed, scenes, planned, checks, tuple(findings[:SHOWN_FINDINGS]), len(findings))


def _check(name: str, findings: list[dict[str, str]], measured: str | None) -> Check:
    """Return one line; ``measured`` None: there was nothing to measure."""
    mine = [f["severity"] for f in findings if f["check"] == name]
    errors, warnings = mine.count("error"), mine.count("warning")
    passed = False if errors else None if measured is None else True
    counts = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in ((errors, "error"), (warnings, "warning")) if n]
    text = "; ".join(part for part in (measured, ", ".join(counts)) if part)
    return Check(
        name, MEANING.get(name, ""), passed, warnings, text or ("no error" if passed else "nothing to compare")
    )


def _as_far_as_seen(check: Check, scenes: int, planned: int) -> Check:
    """Return the line, its pass withdrawn if no scene was checked or, for completeness, not every planned one."""
    is_completeness = check.name == "completeness"
    if scenes == 0:
        return replace(check, passed=False if is_completeness else None, open="no scene")
    if is_completeness and check.passed and scenes < planned:
        return replace(check, passed=None, open="incomplete")
    return check


def _measured(record: Mapping[str, Any]) -> dict[str, str | None]:
    """Return, by check, the measured numbers in words; None where nothing could be measured."""
    nearest, agreeing = record["nearest_surface"], record["agreeing_share"]
    shifts = [record["shift_x_px"], record["shift_y_px"], record["depth_factor"]]
    different = [f"{name} {count}" for name, count in sorted(record["distinct_hashes"].items())]
    return {
        "completeness": f"{record['scenes']} of {record['scene_count']} scenes, {record['frames']} frames",
        "cameras": "no error"
        if None in shifts
        else f"common shift {_rounded(shifts[0])}, {_rounded(shifts[1])} px; depth factor {shifts[2]:.5f}",
        "isolation": f"different values: {', '.join(different)}" if different else None,
        "equal depth": depth_in_words(record["depth_groups"], record.get("depth_compared", {})),
        "clearance": None
        if nearest is None
        else f"nearest surface {nearest:.3f}, required {record['clearance_required']:g} scene units",
        "exposure": f"{record['clipped_share']:.2%} of frames clipped, {record['black_share']:.2%} black "
        "(expected < 1 %)",
        "reprojection": None
        if agreeing is None
        else f"{agreeing:.3%} of {record['covisible_pixels']:,} co-visible pixels agree (required 99 %)",
    }


def _rounded(shift_px: float) -> str:
    return f"{round(shift_px, 3) + 0.0:.3f}"  # + 0.0 turns -0.0 into 0.0
