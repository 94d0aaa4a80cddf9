"""What a farm costs at the size of 10^4 to 10^6 scenes, with faked ones: a shard's start, finishing, verification.

A faked scene is a folder with hard links to a small scene.json and its checksums.json; what a run notes of its scenes
is faked as well. Every measurement runs the real code in a process of its own. Times are those of the wall, in brackets
of the CPU; MB are what it took beyond importing. One shard of 1,000 has done half of its scenes when its start is
measured, all others are complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, print_table

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting

HELP = Help(
    usage="python benchmarks/farm_scale.py [scenes=[10000,100000]] [out=FOLDER]",
    explanation="Measures what starting, finishing and verifying cost with many scenes, which are faked.",
    examples=("python benchmarks/farm_scale.py scenes=[10000]",),
)
SHARDS, SHARD = 1000, 500
FACTORS = ("camera", "geometry", "lighting", "noise", "texture")
MATERIALS = 100
FRAMES, PAIRS = 100, 2  # of a scene that is verified
MOST_WHOLE = 100_000  # scenes of a run without shards, which reads two files of each


@dataclass(frozen=True)
class Options:
    """How many scenes, and where."""

    scenes: tuple[int, ...] = setting((10_000, 100_000, 1_000_000), "numbers of scenes", minimum=1000)
    out: str = setting("", "folder in which they are made and removed again; empty: a temporary one")


def words_of(out: Path, scenes: int) -> list[str]:
    """Return the words of an experiment with one dataset of so many scenes."""
    own = ["preset=geometry", "downstream=", "dataset_count=1", "texture.bank_size_px=16", "stages=generate"]
    own += ["frames=1", "render.width_px=28", "render.height_px=28"]  # or the disk would be said to be too small
    return [*own, f"scene_count={scenes}", f"out={out}"]


def hashes_of(name: str) -> dict[str, str]:
    """Return hashes that a scene could have: of geometry a new one for every scene."""
    return {f: hashlib.sha256(f"{f} {name if f == 'geometry' else ''}".encode()).hexdigest() for f in FACTORS}


def fake(out: Path, indices: Iterable[int], whole: bool) -> None:
    """Make the folders of these scenes; unless ``whole``, only those of the shard have all that a start reads."""
    from megasynth_attr.dataset.paths import CHECKSUMS_FILE, SCENE_FILE, scene_dir

    dataset, originals = out / "geometry_00", out / "originals"
    originals.mkdir(exist_ok=True)
    for index in indices:
        folder = scene_dir(dataset, index)
        scene, sums = (originals / f"{folder.parent.name}.{name}" for name in (SCENE_FILE, CHECKSUMS_FILE))
        if not scene.exists():  # file systems limit the links to one file
            folder.parent.mkdir(parents=True, exist_ok=True)
            identities = {f"material_{number:02d}": "0" * 64 for number in range(8)}
            record = {"factors": {"texture": {"identities": identities}}, "hashes": hashes_of(folder.parent.name)}
            scene.write_text(json.dumps(record))
            sums.write_text(json.dumps({"files": {SCENE_FILE: hashlib.sha256(scene.read_bytes()).hexdigest()}}))
        folder.mkdir()
        os.link(scene, folder / SCENE_FILE)
        if whole or index % SHARDS == SHARD - 1:
            os.link(sums, folder / CHECKSUMS_FILE)


def fake_notes(out: Path, scenes: int) -> None:
    """Write what the runs of all shards would have noted of their scenes."""
    from megasynth_attr.dataset.index import NEW, Line
    from megasynth_attr.dataset.paths import INDEX, scene_name

    folder = out / "geometry_00" / INDEX / NEW
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        names = map(scene_name, range(shard, scenes, SHARDS))
        materials = [f"material_{(shard + number) % MATERIALS:02d}" for number in range(8)]
        lines = (Line(name, hashes_of(name), materials).text() for name in names)
        (folder / f"host.{shard}.jsonl").write_bytes(b"".join(lines))


def start(out: Path, scenes: int, *words: str) -> None:
    """Do everything that a run does before it renders."""
    from megasynth_attr.farm import generate
    from megasynth_attr.scene.config import resolve

    class Began(Exception):
        pass

    def render(*_: object) -> None:
        raise Began

    experiment = resolve([*words_of(out, scenes), *words])

    def measured() -> None:
        generate.check_machine(experiment)
        try:
            generate.generate(experiment)
        except Began:
            return

    generate._render = render
    report(measured)


def finish(out: Path, scenes: int) -> None:
    """Complete dataset.json, unless it is complete."""
    from megasynth_attr.dataset.record import finalise, lists_all

    dataset = out / "geometry_00"

    def measured() -> None:
        if not lists_all(dataset):
            finalise(dataset, [])

    report(measured)


def verify(out: Path, scenes: int) -> None:
    """Compare scenes of which nothing is wrong."""
    import numpy as np

    from megasynth_attr.dataset.findings import SceneFacts
    from megasynth_attr.dataset.reader import open_dataset
    from megasynth_attr.dataset.reprojection import PairResult
    from megasynth_attr.dataset.verify import expectations, report_of

    pair = PairResult(10_000, True, 9_000, 9_000, np.eye(3), np.zeros(3), 1.0, 9_000)

    def facts() -> Iterator[SceneFacts]:
        for index in range(scenes):
            name = f"{index:06d}"
            digests = [f"{frame:032d}{index:032d}" for frame in range(FRAMES)]
            yield SceneFacts(
                name,
                hashes=hashes_of(name),
                depth_digests=digests,
                frames=FRAMES,
                nearest_surface=1.0,
                pairs=[(a, a + 1, pair) for a in range(PAIRS)],
            )

    dataset = open_dataset(out / "geometry_00")
    report(lambda: report_of(dataset, expectations(dataset), facts(), False))


def report(action: Callable[[], object]) -> None:
    """Print the seconds that ``action`` takes, those of the CPU, and by how many MB it raises the process's peak."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu_started = time.monotonic(), time.process_time()
    action()
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    print(f"\n{seconds:.2f} s ({cpu_seconds:.2f}), {megabytes:.0f} MB")


def in_another_process(name: str, out: Path, scenes: int, *words: str) -> str:
    """Return seconds, those of the CPU, and MB of one of the functions above."""
    code = f"import sys; sys.path[:0] = [{str(ROOT / 'benchmarks')!r}]; import farm_scale; from pathlib import Path; "
    code += f"farm_scale.{name}(Path({str(out)!r}), {scenes}, *{words!r})"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    figures = done.stdout.splitlines()[-1]
    print(f"{scenes:,}: {name} {' '.join(words)}: {figures}", file=sys.stderr, flush=True)
    return figures


def measure(out: Path, scenes: int) -> list[str]:
    """Return a row of the table."""
    begun = time.monotonic()
    started = [in_another_process("start", out, scenes, f"shard={SHARD}/{SHARDS}")]
    late = range(scenes // 2 + SHARD - 1, scenes, SHARDS)  # the second half of one shard
    whole = scenes <= MOST_WHOLE
    fake(out, (index for index in range(scenes) if index not in late), whole)
    started += [in_another_process("start", out, scenes, f"shard={SHARD}/{SHARDS}")]
    started += [in_another_process("start", out, scenes) if whole else "–"]
    fake_notes(out, scenes)
    finished = [in_another_process("finish", out, scenes)]
    fake(out, late, whole)
    finished += [in_another_process("finish", out, scenes) for _ in range(2)]
    size_mb = (out / "geometry_00" / "dataset.json").stat().st_size / 1e6
    started += [in_another_process("start", out, scenes, f"shard={SHARD}/{SHARDS}", "scenes=0-999")]
    verified = in_another_process("verify", out, scenes)
    row = [f"{scenes:,}", *started[:3], *finished, started[3], verified]
    return [*row, f"{size_mb:.0f} MB", f"{time.monotonic() - begun:.0f} s"]


def main(words: list[str]) -> None:
    """Measure and print a table."""
    options = parse(Options, words, HELP)
    rows = []
    for scenes in options.scenes:
        out = Path(tempfile.mkdtemp(prefix="farm-scale-", dir=options.out or None))
        try:
            rows.append(measure(out, scenes))
        finally:
            shutil.rmtree(out)
    columns = (
        f"shard {SHARD}/{SHARDS} starts, empty",
        f"shard {SHARD}/{SHARDS} starts, half done",
        "a run without shards starts",
        "finish, all noted by runs",
        "finish again, 1 shard new",
        "finish again, nothing new",
        "a shard of complete scenes, all of the run",
        "verify: compare scenes",
        "dataset.json",
        "whole benchmark",
    )
    print(f"{sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}\n")
    print_table("of scenes", " | ".join(row[0] for row in rows), zip(columns, *(row[1:] for row in rows), strict=True))


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
