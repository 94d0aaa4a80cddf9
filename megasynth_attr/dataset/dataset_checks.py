"""Checks across the scenes of a dataset: completeness, isolation, equal depth, exposure, reprojection.

Each is given one scene after another, in order, and keeps only what it compares: a few bytes a scene at most.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

from megasynth_attr.core.codec import content_hash
from megasynth_attr.core.command.words import shown
from megasynth_attr.core.pages.words import in_words
from megasynth_attr.core.streams import Scope
from megasynth_attr.dataset.conventions import CONVENTIONS, FORMER
from megasynth_attr.dataset.findings import ERROR, WARNING, Finding, SceneFacts
from megasynth_attr.dataset.paths import RENDER_REST, scene_name
from megasynth_attr.dataset.reader import Dataset
from megasynth_attr.dataset.record_file import Entry, checksum_of
from megasynth_attr.dataset.recorded import RecordedFactor
from megasynth_attr.dataset.reprojection import PairResult, Systematic, solve_systematic
from megasynth_attr.scene.config import fingerprinted
from megasynth_attr.scene.factor import missing_plugin, registered

EQUAL_DEPTH = "equal depth"
BADLY_EXPOSED_SHARE = 0.01
AGREEING_SHARE = 0.99
PAIR_AGREEING_SHARE = 0.97  # a single pair of views has fewer pixels, and rarer shapes
MIN_COVISIBLE = 500
MIN_SHARED = 0.03
MOST_RENDERERS = 20  # that are told apart
MAX_SHIFT_PX = 0.25
MAX_DEPTH_FACTOR = 0.0025


class Completeness:
    """Whether the scenes that exist are those that dataset.json lists, and show what it says.

    ``partial``: only some were asked for.
    """

    def __init__(self, dataset: Dataset, partial: bool) -> None:
        self._dataset, self._partial = dataset, partial
        self._listed: Iterator[Entry] = iter(dataset.listed() or ())
        self._next = next(self._listed, None)
        self._count = 0
        self._changed: list[Finding] = []
        self._missing: list[Finding] = []
        self._all_seen = not partial  # every scene that is listed, with its hashes
        self._used: dict[str, str] = {}  # materials and their hashes, as the listed scenes have them

    def add(self, fact: SceneFacts) -> None:
        self._count += 1
        self._pass_over(lambda name: name < fact.name)
        if self._next is None or self._next[0] != fact.name:
            return
        listed = self._next[1].get("hashes")
        self._next = next(self._listed, None)
        self._used |= fact.identities
        self._all_seen &= bool(fact.hashes)
        if listed is not None and fact.hashes and listed != fact.hashes:
            self._changed.append(Finding(ERROR, "scene", fact.name, "its hashes are not those listed in dataset.json"))

    def findings(self) -> list[Finding]:
        """Return where scenes do not match the list. If there is none at all that is an error: nothing was verified."""
        self._pass_over(lambda _: True)
        name, count, planned = self._dataset.name, self._count, self._dataset.scene_count
        findings = []
        if not count:
            asked = "of the scenes asked for exists" if self._partial else f"of {planned} scenes exists"
            findings.append(Finding(ERROR, "completeness", name, f"none {asked}: there is nothing to verify"))
        elif not self._partial and count < planned:
            missing = f"{count} of {planned} scenes exist; {RENDER_REST}"
            findings.append(Finding(WARNING, "completeness", name, missing))
        return [*findings, *self._changed, *self._missing]

    def record_findings(self) -> list[Finding]:
        """Return where dataset.json was changed: it disagrees with its checksum, itself, our conventions or the scenes.

        To be called after ``findings``.
        """
        dataset, recorded, record = self._dataset, self._dataset.recorded, self._dataset.record
        problems = []
        if recorded.checksum and recorded.checksum != checksum_of(record, dataset.listed()):
            problems.append("dataset.json was changed after it was written: its checksum differs")
        if recorded.fingerprint != content_hash(fingerprinted(record["config"])):
            problems.append("the fingerprint is not that of the settings; one of them was changed")
        stated = {"attribute": recorded.config.content.attribute, "scene_count": recorded.config.content.scene_count}
        stated["version"] = recorded.config.version
        problems += [f"{key} is not that of the settings" for key, value in stated.items() if record.get(key) != value]
        if record.get("conventions") not in (CONVENTIONS, CONVENTIONS | FORMER):
            problems.append("the conventions are not those of this program, so the numbers may mean something else")
        listed = {str(material.get("name")): material.get("identity") for material in recorded.materials}
        problems += [
            f"the material {name} is not the one that the scenes show"
            for name in sorted(self._used.keys() | (listed.keys() if self._all_seen else set()))
            if listed.get(name) != self._used.get(name)
        ]
        findings = [Finding(ERROR, "record", dataset.name, problem) for problem in problems]
        if not recorded.checksum:
            message = (
                "dataset.json has no checksum (0.1.0 wrote none), so nothing says whether its licences were changed"
            )
            findings.append(Finding(WARNING, "record", dataset.name, message))
        return findings

    def _pass_over(self, is_before: Callable[[str], bool]) -> None:
        """Skip listed scenes that do not exist."""
        while self._next is not None and is_before(name := self._next[0]):
            if not self._partial:
                message = "dataset.json lists this scene, but its folder is missing"
                self._missing.append(Finding(ERROR, "completeness", name, message))
            self._all_seen = False
            self._next = next(self._listed, None)


class Isolation:
    """Whether factors differ between scenes where scope and ``variants`` forbid it; whether the attribute varies."""

    def __init__(self, dataset: Dataset) -> None:
        config = dataset.recorded.config
        self._attribute = dataset.attribute
        self._factors = {**config.factors, "noise": RecordedFactor(config.content.noise_scope)}
        self._count = 0
        self._unknown: set[str] = set()
        # factor → number of the variant → its hashes, the first two, each with the scene that has it first
        self._found: dict[str, dict[int, dict[str, str]]] = {name: defaultdict(dict) for name in self._factors}

    def add(self, fact: SceneFacts) -> None:
        if not fact.hashes:
            return
        self._count += 1
        self._unknown |= fact.hashes.keys() - self._factors.keys()
        for name, settings in self._factors.items():
            variants = 1 if settings.scope == Scope.SCENE.value else settings.variants
            group = self._found[name][int(fact.name) % variants]
            if len(group) < 2:
                group.setdefault(fact.hashes.get(name, ""), fact.name)

    def findings(self) -> list[Finding]:
        findings = [
            Finding(ERROR, "isolation", name, "scenes have this factor, but dataset.json does not name it")
            for name in sorted(self._unknown)
        ]
        for name, settings in sorted(self._factors.items()):
            groups = self._found[name].values()
            if settings.scope == Scope.SCENE.value:
                if name == self._attribute and self._count > 1 and all(len(group) == 1 for group in groups):
                    findings.append(Finding(ERROR, "isolation", name, "it should vary, but all scenes have the same"))
            elif differing := next((group for group in groups if len(group) > 1), None):
                first, second = differing.values()
                kept = f"scope={settings.scope}, variants={settings.variants}"
                message = f"{kept}, but scenes {first} and {second} differ"
                findings.append(Finding(ERROR, "isolation", name, message))
        return findings


def depth_promises(dataset: Dataset) -> tuple[frozenset[str], list[Finding]]:
    """Return the names of what changes no depth – noise, and the factors that say so – and a warning for each factor of
    the dataset that is unknown here."""
    config = dataset.recorded.config
    still = {name for name, factor in registered().items() if not factor.changes_depth}
    unknown = sorted(config.factors.keys() - registered().keys())
    message = "scenes that differ in it are not compared: whether it changes depth is unknown here"
    return frozenset(still | {"noise"}), [
        Finding(WARNING, EQUAL_DEPTH, name, f"{missing_plugin(name, config.plugins)}; {message}") for name in unknown
    ]


class EqualDepth:
    """Whether scenes that differ only in the factors ``still`` have byte-equal depth files. A context manager.

    Of each scene a temporary database keeps 63 bits of every hash but the usual ones; hashes that differ
    are taken to differ in these. It lies on disk beyond a few MiB.
    """

    def __init__(self, still: frozenset[str]) -> None:
        self._still = still
        self._usual: dict[str, int] = {}  # of each factor: the value of the first scene; 0: it has not the factor
        self._rows = sqlite3.connect("", isolation_level=None)
        self._rows.executescript("""
            PRAGMA journal_mode = OFF;
            CREATE TABLE scenes (scene INTEGER PRIMARY KEY, others INTEGER, depth INTEGER, whole INTEGER);
            CREATE TABLE unusual (factor TEXT, scene INTEGER, value INTEGER, PRIMARY KEY (factor, scene)) WITHOUT ROWID;
            BEGIN;
        """)

    def __enter__(self) -> EqualDepth:
        return self

    def __exit__(self, *exception: object) -> None:
        self._rows.close()

    def add(self, fact: SceneFacts) -> None:
        if not fact.hashes:
            return
        scene, values = int(fact.name), {name: _number(value) for name, value in fact.hashes.items()}
        others = sorted((name, value) for name, value in fact.hashes.items() if name not in self._still)
        if not self._usual:
            self._usual = dict(values)
        self._rows.execute(
            "INSERT INTO scenes VALUES (?, ?, ?, ?)",
            (scene, *(_number(repr(part)) for part in (others, fact.depth_digests, sorted(fact.hashes.items())))),
        )
        for name in self._usual.keys() | values.keys():
            usual, value = self._usual.setdefault(name, 0), values.get(name, 0)
            if value != usual:
                self._rows.execute("INSERT INTO unusual VALUES (?, ?, ?)", (name, scene, value))

    @property
    def distinct_hashes(self) -> dict[str, int]:
        """How many different values each factor has among the scenes."""
        query = """SELECT factor, COUNT(DISTINCT value) + (COUNT(*) < (SELECT COUNT(*) FROM scenes))
            FROM unusual GROUP BY factor"""
        return dict(sorted((dict.fromkeys(self._usual, 1) | dict(self._rows.execute(query))).items()))

    def compare(self, digests_of: Callable[[int], list[str]]) -> tuple[int, Mapping[str, int], list[Finding]]:
        """Return the number of groups with at least two scenes, how many of them differ in each factor, and a finding
        per scene whose depth differs. ``digests_of`` returns the hashes of the depth files of a scene, by its index.
        """
        rows = self._rows
        rows.execute("""CREATE TABLE alike AS SELECT others, MIN(scene) AS first, COUNT(*) AS size
            FROM scenes GROUP BY others HAVING size > 1""")
        rows.execute("CREATE UNIQUE INDEX of_others ON alike (others)")
        (count,) = rows.execute("SELECT COUNT(*) FROM alike").fetchone()
        differing = rows.execute("""SELECT factor, COUNT(*) FROM (
                SELECT factor FROM unusual JOIN scenes USING (scene) JOIN alike USING (others)
                GROUP BY factor, others HAVING COUNT(DISTINCT value) + (COUNT(*) < MAX(size)) > 1
            ) GROUP BY factor""")
        factors = dict(differing)
        unequal = rows.execute("""SELECT first, here.scene FROM scenes AS here JOIN alike USING (others)
            JOIN scenes AS there ON there.scene = first WHERE here.depth <> there.depth ORDER BY first, here.scene""")
        findings = []
        for pair in unequal:
            frames = zip(*map(digests_of, pair), strict=True)
            different = [frame for frame, (a, b) in enumerate(frames) if a != b]
            message = (
                f"no factor that changes depth differs from scene {scene_name(pair[0])}, but depth differs in "
                f"{len(different)} frames, first in frame {different[0]}"
            )
            findings.append(Finding(ERROR, EQUAL_DEPTH, scene_name(pair[1]), message))
        return count, factors, findings

    def repeated(self) -> list[Finding]:
        """Return a warning if scenes are the same in everything, as when meshes were added while they were rendered."""
        query = "SELECT MIN(scene), MAX(scene), COUNT(*) FROM scenes GROUP BY whole HAVING COUNT(*) > 1 ORDER BY 1"
        found = self._rows.execute(query).fetchall()
        if not found:
            return []
        message = (
            f"scenes that repeat another one in every factor: {sum(size - 1 for _, _, size in found)}, e.g. "
            f"{scene_name(found[0][1])} repeats {scene_name(found[0][0])}; if files were added to geometry.scan_folder "
            "meanwhile, render the dataset anew in another folder"
        )
        return [Finding(WARNING, "isolation", "", message)]


def _number(text: str) -> int:
    """Return 63 bits of the hash of ``text``, never 0."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1 or 1


class Renderers:
    """Whether one version of Blender has rendered all scenes."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, fact: SceneFacts) -> None:
        if fact.blender and (fact.blender in self._counts or len(self._counts) < MOST_RENDERERS):
            self._counts[fact.blender] += 1

    def findings(self) -> list[Finding]:
        """Return a warning if there are several."""
        if len(self._counts) < 2:
            return []
        found = in_words([f"{shown(name)} ({count})" for name, count in self._counts.most_common()])
        message = (
            f"the scenes were rendered by Blender {found}, so more differs between pictures than the dataset says, and "
            "depth is not equal to the byte; render those of one version anew"
        )
        return [Finding(WARNING, "isolation", "", message)]


class Exposure:
    """How many frames are clipped, black or empty."""

    def __init__(self) -> None:
        self.frames = self._clipped = self._black = self._empty = 0

    def add(self, fact: SceneFacts) -> None:
        self.frames += fact.frames
        self._clipped += fact.clipped_frames
        self._black += fact.black_frames
        self._empty += fact.empty_frames

    @property
    def clipped_share(self) -> float:
        return self._clipped / max(1, self.frames)

    @property
    def black_share(self) -> float:
        return self._black / max(1, self.frames)

    def findings(self) -> list[Finding]:
        """Return warnings for shares of more than 1 %, and for frames that show nothing."""
        findings = []
        shares = {"have more than 20 % clipped": self.clipped_share, "have more than 60 % black": self.black_share}
        for text, share in shares.items():
            if share > BADLY_EXPOSED_SHARE:
                advice = "adjust render.exposure_stops or the lights"
                message = f"{share:.1%} of the frames {text} foreground pixels; {advice}"
                findings.append(Finding(WARNING, "exposure", "", message))
        if self._empty:
            findings.append(Finding(WARNING, "exposure", "", f"{self._empty} frames show no surface at all"))
        return findings


class Reprojection:
    """Whether the depth maps of different views agree, and the common error of all cameras."""

    def __init__(self) -> None:
        self._sum: PairResult | None = None
        self._overlapping: PairResult | None = None  # the sum of views that look in nearly the same direction
        self._disagreeing: list[Finding] = []

    def add(self, fact: SceneFacts) -> None:
        for a, b, pair in fact.pairs:
            self._sum = pair if self._sum is None else self._sum + pair
            if pair.overlapping:
                self._overlapping = pair if self._overlapping is None else self._overlapping + pair
            if pair.covisible >= MIN_COVISIBLE and pair.agreeing < PAIR_AGREEING_SHARE * pair.covisible:
                share = f"{pair.agreeing / pair.covisible:.2%} of {pair.covisible}"
                message = f"{share} co-visible pixels agree within 0.5 %"
                self._disagreeing.append(Finding(ERROR, "reprojection", f"{fact.name}/frames {a} and {b}", message))

    @property
    def covisible(self) -> int:
        return self._sum.covisible if self._sum else 0

    @property
    def agreeing_share(self) -> float | None:
        """Of the co-visible pixels; None if there are too few."""
        return self._sum.agreeing / self.covisible if self._sum and self.covisible >= MIN_COVISIBLE else None

    @property
    def systematic(self) -> Systematic:
        return solve_systematic([self._sum] if self._sum else [])

    def findings(self) -> list[Finding]:
        findings, share = self._overlap_findings(), self.agreeing_share
        if share is None:
            if self._sum and not findings:
                message = f"only {self.covisible} co-visible pixels: the views overlap too little to be compared"
                findings.append(Finding(WARNING, "reprojection", "", message))
            return findings
        if share < AGREEING_SHARE:
            message = f"{share:.2%} of {self.covisible} co-visible pixels agree within 0.5 %; at least 99 % should"
            findings.append(Finding(ERROR, "reprojection", "", message))
        return [*findings, *self._disagreeing, *_systematic_findings(self.systematic)]

    def _overlap_findings(self) -> list[Finding]:
        """Return an error if views that look in nearly the same direction share almost no surfaces."""
        pairs = self._overlapping
        if not pairs or pairs.tested < MIN_COVISIBLE or pairs.covisible >= MIN_SHARED * pairs.tested:
            return []
        message = (
            f"only {pairs.covisible} of {pairs.tested} pixels are seen by a view in nearly the same direction: "
            "the poses are wrong"
        )
        return [Finding(ERROR, "reprojection", "", message)]


def _systematic_findings(systematic: Systematic) -> list[Finding]:
    findings = []
    for axis, shift in (("x", systematic.shift_x_px), ("y", systematic.shift_y_px)):
        if shift is not None and abs(shift) > MAX_SHIFT_PX:
            message = f"all principal points are off by {shift:+.2f} px in {axis}: depth is not taken at pixel centres"
            findings.append(Finding(ERROR, "reprojection", "", message))
    factor = systematic.depth_factor
    if factor is not None and abs(factor - 1) > MAX_DEPTH_FACTOR:
        message = f"depth is {factor:.4f} times what the camera poses say: depth and poses differ in unit"
        findings.append(Finding(ERROR, "reprojection", "", message))
    return findings
