"""The paper's evaluations of downstream tasks: which scenes and views, how they are aligned, in which units.

A protocol fixes settings of the evaluation and chooses among the scenes that were found. Its numbers are the paper's
columns: mean Acc and Comp in thousandths of the paper's unit of length, NC in hundredths. Free of PyTorch.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megasynth_attr.core.codec import plain_text, to_plain
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.pages.words import count_text
from megasynth_train.data.layouts.names import OURS

if TYPE_CHECKING:  # settings and their help need the protocols' names, not what reads scenes
    from megasynth_train.data.scene import TrainingScene

COLUMNS = {  # heading → key of the point clouds' numbers, factor, whether it is a length
    "Acc": ("accuracy_mean", 1000, True),
    "Comp": ("completeness_mean", 1000, True),
    "NC": ("nc_mean", 100, False),
}
NONE = "none"  # no protocol
_ICP = 0.1  # the paper's largest distance of a pair, in its unit of length
_COLOURLESS = 3.0  # of 255: the mean difference of channels in a picture without colours
_SET = re.compile(r"set(\d+)")
_SCENE = re.compile(r"scene(\d+)")
_CLEARPOSE_WHOLE = (8, 9)  # sets whose scenes are all for testing; of the others it is the last one
_CLEARPOSE_FAULTY = {6: range(2, 7)}  # set → scenes with wrong depth


@dataclass(frozen=True)
class Protocol:
    """One evaluation. ``scenes``: how many the paper has; ``unit``: scene units per unit of length of the paper."""

    name: str
    views: int
    scenes: int
    unit: float
    wants: str  # which scenes it takes, for messages
    takes: Callable[[Sequence[TrainingScene]], list[TrainingScene]]

    @property
    def fixed(self) -> dict[str, Any]:
        """Return the settings it fixes, by key."""
        same = {"split": "all", "scenes": "all", "max_scenes": 0, "stride": 0, "view_ids": (), "max_points": 0}
        return {**same, "views": self.views, "icp_distance": _ICP * self.unit}

    def require(self, values: Mapping[str, Any], prefix: str = "") -> None:
        """Raise ConfigError for the first of ``values`` that differs from what the protocol fixes."""
        for key, value in self.fixed.items():
            if key in values and values[key] != value:
                raise ConfigError(
                    f"{prefix}{key}={plain_text(to_plain(values[key]))}: protocol={self.name} fixes "
                    f"{key}={plain_text(to_plain(value)) or '[]'}; leave it out, or evaluate without protocol="
                )

    def choose(self, scenes: Sequence[TrainingScene]) -> tuple[tuple[TrainingScene, ...], tuple[str, ...]]:
        """Return the scenes it evaluates and notes for the user; ConfigError if there are none."""
        chosen = self.takes(scenes)
        if not chosen:
            raise ConfigError(
                f"protocol={self.name} evaluates {self.wants}; of the {count_text(len(scenes), 'scene')} found, "
                f"none is one, e.g. {scenes[0].folder}"
            )
        notes = []
        if len(chosen) != self.scenes:
            notes.append(
                f"protocol={self.name}: {count_text(len(chosen), 'scene')} instead of the paper's {self.scenes}, so "
                "the averages cannot be set beside its"
            )
        return tuple(chosen), (*notes, *clearpose_faults([s.folder for s in chosen if s.layout == "clearpose"]))

    def columns(self, points: Mapping[str, float]) -> dict[str, float]:
        """Return the paper's columns of one scene's, or the average's, numbers of point clouds."""
        return {heading: points[key] * self.factor(heading) for heading, (key, *_) in COLUMNS.items()}

    def factor(self, heading: str) -> float:
        """Return what the number of a column is multiplied by."""
        _, factor, is_length = COLUMNS[heading]
        return factor / (self.unit if is_length else 1.0)

    def warning(self, colours: np.ndarray) -> str:
        """Return what is suspicious about a scene with these colours of points (N×3 uint8); "" if nothing is."""
        spread = np.ptp(colours.astype(np.int16), axis=1).mean() if len(colours) else 0.0
        if self.name == "twok2k" and spread < _COLOURLESS:
            return "its pictures show no colours; the mesh may lack the colours of its vertices"
        return ""

    @property
    def words(self) -> str:
        """Return the factors as a sentence."""
        unit = f"; one unit of the paper is {self.unit:g} scene units" if self.unit != 1 else ""
        return f"Acc and Comp: mean × 1000 in the paper's unit of length{unit}. NC: mean × 100."


def _geometry(scene: TrainingScene) -> Any:
    from megasynth_attr.dataset.reader import SceneData

    return SceneData(scene.folder).scene.factors.get("geometry") if scene.layout == OURS else None


def _test_scans(scenes: Sequence[TrainingScene]) -> list[TrainingScene]:
    """Return scans of the test side; scenes that the paper's scripts rendered do not say which side they are on."""
    kept = []
    for scene in scenes:
        scan = getattr(_geometry(scene), "scan", None)
        if scene.layout == "paper" or (scan is not None and scan.split == "test"):
            kept.append(scene)
    return kept


def _pictures_on_walls(scenes: Sequence[TrainingScene]) -> list[TrainingScene]:
    return [s for s in scenes if s.layout == "paper" or getattr(_geometry(s), "layout", "") == "plane"]


def clearpose_sides(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return ClearPose's (training, test) scenes: of sets 1 to 7 the last is for testing, sets 8 and 9 are so whole.

    Folders that are not called set<S>/scene<N> are on neither side.
    """
    numbers = {folder: found for folder in folders if (found := _clearpose_number(folder)) is not None}
    last: dict[int, int] = defaultdict(int)
    for in_set, number in numbers.values():
        last[in_set] = max(last[in_set], number)
    test = [f for f, (in_set, number) in numbers.items() if in_set in _CLEARPOSE_WHOLE or number == last[in_set]]
    return [folder for folder in numbers if folder not in test], test


def _clearpose_number(folder: Path) -> tuple[int, int] | None:
    in_set, scene = _SET.fullmatch(folder.parent.name), _SCENE.fullmatch(folder.name)
    return (int(in_set[1]), int(scene[1])) if in_set and scene else None


def _clearpose_test(scenes: Sequence[TrainingScene]) -> list[TrainingScene]:
    test = clearpose_sides([scene.folder for scene in scenes if scene.layout == "clearpose"])[1]
    return [scene for scene in scenes if scene.folder in test]


def clearpose_faults(folders: Sequence[Path]) -> list[str]:
    """Return a sentence for each of these ClearPose scenes whose data are known to be faulty."""
    faults = []
    for folder in folders:
        in_set, number = _clearpose_number(folder) or (0, 0)
        if number in _CLEARPOSE_FAULTY.get(in_set, ()):
            faults.append(f"{folder.parent.name}/{folder.name}: the depth of this ClearPose scene is known to be wrong")
    return faults


_SCANS = "scans rendered for testing (dataset 1 of the presets thuman and twok2k)"
PROTOCOLS = {
    one.name: one
    for one in (
        Protocol("thuman", 8, 100, 2.0, _SCANS, _test_scans),
        Protocol("twok2k", 8, 50, 2.0, _SCANS, _test_scans),
        Protocol(
            "clearpose",
            12,
            19,
            1.0,
            "the test scenes of ClearPose (set<S>/scene<N>: the last of sets 1 to 7, all of sets 8 and 9)",
            _clearpose_test,
        ),
        Protocol("spoof_plane", 7, 450, 1.0, "pictures on a wall (preset spoof_plane)", _pictures_on_walls),
    )
}


def fixed_by(protocol: str, settings: Mapping[str, Any], named: Collection[str], prefix: str) -> dict[str, Any]:
    """Return what ``protocol`` fixes; ConfigError if a key that was ``named`` has another value in ``settings``."""
    PROTOCOLS[protocol].require({key: settings[key] for key in named if key in settings}, prefix)
    return PROTOCOLS[protocol].fixed
