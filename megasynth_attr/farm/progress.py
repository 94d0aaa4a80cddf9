"""One progress bar over all frames, with a remaining time that counts only what this run renders."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from typing import TextIO

from tqdm import tqdm

from megasynth_attr.core.pages.words import duration_text
from megasynth_attr.farm.tasks import Plan

LINE_EVERY_S = 10.0  # without a terminal
REFRESH_S = 1.0  # of the bar while nothing happens
FEW_FRAMES = 4
FAR_S = 30.0  # other machines tell only now and then how far they are: their pace is known after this time
WINDOW_S = 120.0  # the remaining time follows the last two minutes, or the last third of a long run
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} frames [{elapsed}{postfix}]"


class Pace:
    """Frames per second over a sliding window that begins with the first frame: starting Blender does not count.

    Everything that happens between frames counts, also building and finishing scenes.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._first: float | None = None

    def add(self, now: float, frames: int) -> None:
        """Note that ``frames`` are done at the time ``now``."""
        if self._first is None:
            self._first = now
        self._marks.append((now, frames))
        span = max(WINDOW_S, (now - self._first) / 3)
        while len(self._marks) > 2 and self._marks[1][0] < now - span:
            self._marks.popleft()

    def is_known(self, now: float, least_s: float) -> bool:
        """Return whether there is a pace over at least the time ``least_s``."""
        return self.frames_per_s(now) is not None and now - self._marks[0][0] >= least_s

    def frames_per_s(self, now: float) -> float | None:
        """Return the pace, or None while too few frames are done to tell."""
        if not self._marks:
            return None
        (since, before), (_, done) = self._marks[0], self._marks[-1]
        return (done - before) / max(now - since, 1e-6) if done - before >= FEW_FRAMES else None


class Progress:
    """Context manager that shows how far a run of ``plan`` is.

    On a terminal a live bar, otherwise a line every few seconds; ``openjd`` adds ``openjd_progress`` lines on stdout.
    Frames of an attempt that failed are taken back, and frames of a scene given up leave the total.
    """

    def __init__(self, plan: Plan, *, openjd: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total, self._planned = plan.frames_selected, plan.frames_todo
        self._already = self._total - self._planned
        self._expected_s = plan.seconds_needed
        self._by_scene: Counter[str] = Counter()
        self.rendered = 0  # frames since this run began, without those of failed attempts
        self.others = 0  # scenes that other runs completed meanwhile
        self._elsewhere = ""  # how the machines are that render, if it is not this one
        self._running = True
        self._openjd = openjd
        self._start = self._shown = time.monotonic()
        self._pace = Pace()
        self._live = self._stream.isatty()
        self._bar = tqdm(
            total=self._total, initial=self._already, desc="frames", bar_format=BAR, file=self._stream,
            disable=not self._live, dynamic_ncols=True,
        )  # fmt: skip
        self._bar.set_postfix_str(self._remaining_text())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._show()
        self._bar.close()

    def frame(self, scene: str) -> None:
        """Count one frame of ``scene``."""
        self._count(scene, self._by_scene[scene] + 1)

    def scene(self, scene: str, frames: int) -> None:
        """Count all ``frames`` of a scene that was rendered elsewhere; counting it again changes nothing."""
        if self._by_scene[scene] != frames:
            self._count(scene, frames)

    def by_others(self, scenes: int, frames: int) -> None:
        """Count scenes that other runs have completed, and their frames."""
        self.others += scenes
        self._add(frames)

    def take_back(self, scene: str, lost_frames: int = 0) -> None:
        """Forget the frames of a failed attempt; ``lost_frames`` will never be rendered and leave the total."""
        self._total -= lost_frames
        self._count(scene, 0)

    def say(self, text: str) -> None:
        """Print ``text`` without tearing the bar."""
        if self._live:
            self._bar.clear()
        print(text, file=self._stream, flush=True)
        if self._openjd:
            print(f"openjd_status: {text}", flush=True)

    def elsewhere(self, state: str, *, running: bool) -> None:
        """Show the ``state`` of other machines, which render; no remaining time is guessed before their pace is known.

        ``running``: whether any renders now.
        """
        self._elsewhere, self._running = state, running

    def remaining_s(self) -> float:
        """Return the expected remaining seconds: from this run's own pace, before the first frames from the plan."""
        now = time.monotonic()
        left = self._total - self._already - self.rendered
        pace = self._pace.frames_per_s(now)
        if pace is None:
            return max(self._expected_s - (now - self._start), self._expected_s * left / max(1, self._planned))
        return left / pace

    def tick(self) -> None:
        """Show that time passes; call it now and then also while no frame is finished."""
        if time.monotonic() - self._shown >= (REFRESH_S if self._live else LINE_EVERY_S):
            self._show()

    def _count(self, scene: str, frames: int) -> None:
        more = frames - self._by_scene[scene]
        self._by_scene[scene] = frames
        self._add(more)

    def _add(self, frames: int) -> None:
        self.rendered += frames
        self._pace.add(time.monotonic(), self.rendered)
        self.tick()

    def _show(self) -> None:
        self._shown = time.monotonic()
        done = self._already + self.rendered
        percent = 100 * done / self._total if self._total else 100.0
        if self._live:
            self._bar.total, self._bar.n = self._total, done
            self._bar.set_postfix_str(self._remaining_text())
        else:
            elapsed = duration_text(self._shown - self._start)
            text = f"frames {done}/{self._total} ({percent:.0f} %), {elapsed} so far, {self._remaining_text()}"
            print(text, file=self._stream, flush=True)
        if self._openjd:
            print(f"openjd_progress: {percent:.1f}", flush=True)

    def _remaining_text(self) -> str:
        others = f" (scenes by other runs: {self.others})" if self.others else ""
        if self._already + self.rendered >= self._total:
            return f"complete{others}"
        if not self._running:
            left = "time left unknown while nothing runs"
        elif self._elsewhere and not self._pace.is_known(time.monotonic(), FAR_S):
            left = "time left not known yet"
        else:
            left = f"{duration_text(self.remaining_s())} left"
        return f"{left}{others}{f'; {self._elsewhere}' if self._elsewhere else ''}"
