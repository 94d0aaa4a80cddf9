"""Checks across the scenes of a dataset: completeness, isolation, equal depth, exposure, reprojection."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from megasynth_attr.core.codec import content_hash
from megasynth_attr.core.streams import Scope
from megasynth_attr.dataset.conventions import CONVENTIONS, FORMER
from megasynth_attr.dataset.findings import ERROR, WARNING, Finding, SceneFacts
from megasynth_attr.dataset.paths import RENDER_REST
from megasynth_attr.dataset.reader import Dataset
from megasynth_attr.dataset.recorded import RecordedFactor, checksum_of
from megasynth_attr.dataset.reprojection import PairResult, Systematic, solve_systematic
from megasynth_attr.scene.config import fingerprinted
from megasynth_attr.scene.factor import missing_plugin, registered

EQUAL_DEPTH = "equal depth"
BADLY_EXPOSED_SHARE = 0.01
AGREEING_SHARE = 0.99
PAIR_AGREEING_SHARE = 0.97  # a single pair of views has fewer pixels, and rarer shapes
MIN_COVISIBLE = 500
MIN_SHARED = 0.03
MAX_SHIFT_PX = 0.25
MAX_DEPTH_FACTOR = 0.0025


def check_completeness(dataset: Dataset, facts: Sequence[SceneFacts], partial: bool) -> list[Finding]:
    """Return where the scenes that exist do not match dataset.json: their number, and the hashes it lists.

    ``partial``: only some were asked for. If there is none at all that is an error: nothing was verified.
    """
    findings = []
    if not facts:
        asked = "of the scenes asked for exists" if partial else f"of {dataset.scene_count} scenes exists"
        findings.append(Finding(ERROR, "completeness", dataset.name, f"none {asked}: there is nothing to verify"))
    elif not partial and len(facts) < dataset.scene_count:
        missing = f"{len(facts)} of {dataset.scene_count} scenes exist; {RENDER_REST}"
        findings.append(Finding(WARNING, "completeness", dataset.name, missing))
    recorded = dataset.recorded.scenes
    for fact in facts:
        listed = recorded.get(fact.name, {}).get("hashes")
        if listed is not None and fact.hashes and listed != fact.hashes:
            findings.append(Finding(ERROR, "scene", fact.name, "its hashes are not those listed in dataset.json"))
    if not partial:
        for name in sorted(set(recorded) - {fact.name for fact in facts}):
            findings.append(
                Finding(ERROR, "completeness", name, "dataset.json lists this scene, but its folder is missing")
            )
    return findings


def check_record(dataset: Dataset, facts: Sequence[SceneFacts], partial: bool) -> list[Finding]:
    """Return where dataset.json was changed: it disagrees with its checksum, itself, our conventions or the scenes."""
    recorded, record = dataset.recorded, dataset.record
    problems = []
    if recorded.checksum and recorded.checksum != checksum_of(record):
        problems.append("dataset.json was changed after it was written: its checksum differs")
    if recorded.fingerprint != content_hash(fingerprinted(record["config"])):
        problems.append("the fingerprint is not that of the settings; one of them was changed")
    stated = {"attribute": recorded.config.content.attribute, "scene_count": recorded.config.content.scene_count}
    stated["version"] = recorded.config.version
    problems += [f"{key} is not that of the settings" for key, value in stated.items() if record.get(key) != value]
    if record.get("conventions") not in (CONVENTIONS, CONVENTIONS | FORMER):
        problems.append("the conventions are not those of this program, so the numbers may mean something else")
    listed = {str(material.get("name")): material.get("identity") for material in recorded.materials}
    used = {name: sha for fact in facts if fact.name in recorded.scenes for name, sha in fact.identities.items()}
    all_seen = not partial and recorded.scenes.keys() <= {fact.name for fact in facts if fact.hashes}
    problems += [
        f"the material {name} is not the one that the scenes show"
        for name in sorted(used.keys() | (listed.keys() if all_seen else set()))
        if listed.get(name) != used.get(name)
    ]
    findings = [Finding(ERROR, "record", dataset.name, problem) for problem in problems]
    if not recorded.checksum:
        message = "dataset.json has no checksum (0.1.0 wrote none), so nothing says whether its licences were changed"
        findings.append(Finding(WARNING, "record", dataset.name, message))
    return findings


def check_isolation(dataset: Dataset, facts: Sequence[SceneFacts]) -> list[Finding]:
    """Return errors for factors that differ between scenes where scope and ``variants`` forbid it, or never vary."""
    findings = []
    config = dataset.recorded.config
    factors = {**config.factors, "noise": RecordedFactor(config.content.noise_scope)}
    readable = [fact for fact in facts if fact.hashes]
    for name in sorted({name for fact in readable for name in fact.hashes} - factors.keys()):
        findings.append(Finding(ERROR, "isolation", name, "scenes have this factor, but dataset.json does not name it"))
    for name, settings in sorted(factors.items()):
        hashes = [fact.hashes.get(name, "") for fact in readable]
        if settings.scope == Scope.SCENE.value:
            if len(readable) > 1 and len(set(hashes)) == 1 and name == dataset.attribute:
                findings.append(Finding(ERROR, "isolation", name, "it should vary, but all scenes have the same"))
            continue
        groups: dict[int, dict[str, str]] = defaultdict(dict)
        for fact, value in zip(readable, hashes, strict=True):
            groups[int(fact.name) % settings.variants].setdefault(value, fact.name)
        for group in groups.values():
            if len(group) > 1:
                first, second = sorted(group.values())[:2]
                kept = f"scope={settings.scope}, variants={settings.variants}"
                message = f"{kept}, but scenes {first} and {second} differ"
                findings.append(Finding(ERROR, "isolation", name, message))
                break
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


def check_equal_depth(
    facts: Sequence[SceneFacts], still: frozenset[str]
) -> tuple[int, Mapping[str, int], list[Finding]]:
    """Check that scenes which differ only in the factors ``still`` have byte-equal depth files.

    Returns the number of groups with at least two scenes; how many of them differ in each factor; and a finding per
    scene whose depth differs.
    """
    groups: dict[tuple[tuple[str, str], ...], list[SceneFacts]] = defaultdict(list)
    for fact in facts:
        if fact.hashes:
            key = tuple(sorted((n, h) for n, h in fact.hashes.items() if n not in still))
            groups[key].append(fact)
    compared = [group for group in groups.values() if len(group) > 1]
    findings = []
    differing: Counter[str] = Counter()
    for first, *others in compared:
        names = {name for fact in (first, *others) for name in fact.hashes}
        differing.update(n for n in names if any(f.hashes.get(n) != first.hashes.get(n) for f in others))
        for other in others:
            frames = zip(first.depth_digests, other.depth_digests, strict=True)
            if different := [i for i, (a, b) in enumerate(frames) if a != b]:
                message = (
                    f"no factor that changes depth differs from scene {first.name}, but depth differs in "
                    f"{len(different)} frames, first in frame {different[0]}"
                )
                findings.append(Finding(ERROR, EQUAL_DEPTH, other.name, message))
    return len(compared), differing, findings


def check_exposure(facts: Sequence[SceneFacts]) -> tuple[float, float, list[Finding]]:
    """Return the share of clipped frames, the share of black frames, and warnings if they exceed 1 %."""
    frames = max(1, sum(fact.frames for fact in facts))
    clipped = sum(fact.clipped_frames for fact in facts) / frames
    black = sum(fact.black_frames for fact in facts) / frames
    empty = sum(fact.empty_frames for fact in facts)
    findings = []
    for share, what in ((clipped, "have more than 20 % clipped"), (black, "have more than 60 % black")):
        if share > BADLY_EXPOSED_SHARE:
            message = f"{share:.1%} of the frames {what} foreground pixels; adjust render.exposure_stops or the lights"
            findings.append(Finding(WARNING, "exposure", "", message))
    if empty:
        findings.append(Finding(WARNING, "exposure", "", f"{empty} frames show no surface at all"))
    return clipped, black, findings


def check_reprojection(facts: Sequence[SceneFacts]) -> tuple[int, float | None, Systematic, list[Finding]]:
    """Return co-visible pixels, their agreeing share, the common camera error, and findings."""
    pairs = [pair for fact in facts for _, _, pair in fact.pairs]
    covisible = sum(pair.covisible for pair in pairs)
    systematic = solve_systematic(pairs)
    findings = _overlap_findings(pairs)
    if covisible < MIN_COVISIBLE:
        if pairs and not findings:
            message = f"only {covisible} co-visible pixels: the views overlap too little to be compared"
            findings.append(Finding(WARNING, "reprojection", "", message))
        return covisible, None, systematic, findings
    share = sum(pair.agreeing for pair in pairs) / covisible
    if share < AGREEING_SHARE:
        message = f"{share:.2%} of {covisible} co-visible pixels agree within 0.5 %; at least 99 % should"
        findings.append(Finding(ERROR, "reprojection", "", message))
    for fact in facts:
        for a, b, pair in fact.pairs:
            if pair.covisible >= MIN_COVISIBLE and pair.agreeing < PAIR_AGREEING_SHARE * pair.covisible:
                message = (
                    f"{pair.agreeing / pair.covisible:.2%} of {pair.covisible} co-visible pixels agree within 0.5 %"
                )
                findings.append(Finding(ERROR, "reprojection", f"{fact.name}/frames {a} and {b}", message))
    return covisible, share, systematic, findings + _systematic_findings(systematic)


def _overlap_findings(pairs: Sequence[PairResult]) -> list[Finding]:
    """Return an error if views that look in nearly the same direction share almost no surfaces."""
    tested = sum(pair.tested for pair in pairs if pair.overlapping)
    shared = sum(pair.covisible for pair in pairs if pair.overlapping)
    if tested < MIN_COVISIBLE or shared >= MIN_SHARED * tested:
        return []
    message = f"only {shared} of {tested} pixels are seen by a view in nearly the same direction: the poses are wrong"
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
