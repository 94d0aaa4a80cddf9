"""One progress bar over all frames, with a remaining time that counts only what this run renders."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from typing import TextIO

from tqdm import tqdm

from megasynth_attr.core.pages.words import duration_text

LINE_EVERY_S = 10.0  # without a terminal
REFRESH_S = 1.0  # of the bar while nothing happens
FEW_FRAMES = 4
WINDOW_S = 120.0  # the remaining time follows the last two minutes, or the last third of a long run
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} frames [{elapsed}{postfix}]"


class Pace:
    """Frames per second over a sliding window that begins with the first frame: starting Blender is no pace.

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

    def frames_per_s(self, now: float) -> float | None:
        """Return the pace, or None while too few frames are done to tell."""
        if not self._marks:
            return None
        (since, before), (_, done) = self._marks[0], self._marks[-1]
        return (done - before) / max(now - since, 1e-6) if done - before >= FEW_FRAMES else None


class Progress:
    """Context manager that shows how far a run is.

    On a terminal a live bar, otherwise a line every few seconds; ``openjd`` adds ``openjd_progress`` lines on stdout.
    Frames of an attempt that failed are taken back, and frames of a scene given up leave the total.
    """

    def __init__(
        self, total: int, done: int, *, expected_s: float, openjd: bool = False, stream: TextIO | None = None
    ) -> None:
        self._stream = stream or sys.stderr
        self._already = done
        self._total = total
        self._planned = total - done
        self._by_scene: Counter[str] = Counter()
        self._expected_s = expected_s
        self._openjd = openjd
        self._start = self._last_line = time.monotonic()
        self._pace = Pace()
        self._last_refresh = self._start
        self._live = self._stream.isatty()
        self._bar = tqdm(
            total=total, initial=done, desc="frames", bar_format=BAR, file=self._stream, disable=not self._live,
            mininterval=0.5, dynamic_ncols=True,
        )  # fmt: skip
        self._bar.set_postfix_str(self._remaining_text())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        if not self._live:
            self._line()

    @property
    def rendered(self) -> int:
        """Frames rendered by this run, without those of failed attempts."""
        return sum(self._by_scene.values())

    def frame(self, scene: str) -> None:
        """Count one frame of ``scene``."""
        self._by_scene[scene] += 1
        self._changed()

    def scene(self, scene: str, frames: int) -> None:
        """Count all ``frames`` of a scene that was rendered elsewhere; again is harmless."""
        if self._by_scene[scene] != frames:
            self._by_scene[scene] = frames
            self._changed()

    def take_back(self, scene: str, lost_frames: int = 0) -> None:
        """Forget the frames of a failed attempt; ``lost_frames`` will never be rendered and leave the total."""
        del self._by_scene[scene]
        self._total -= lost_frames
        self._changed()

    def say(self, text: str) -> None:
        """Print ``text`` without tearing the bar."""
        if self._live:
            self._bar.clear()
        print(text, file=self._stream, flush=True)
        if self._openjd:
            print(f"openjd_status: {text}", flush=True)

    def remaining_s(self) -> float:
        """Return the expected remaining seconds: from this run's own pace, before the first frames from the plan."""
        now = time.monotonic()
        left = self._total - self._already - self.rendered
        pace = self._pace.frames_per_s(now)
        if pace is None:
            return max(self._expected_s - (now - self._start), self._expected_s * left / max(1, self._planned))
        return left / pace

    def _changed(self) -> None:
        self._pace.add(time.monotonic(), self.rendered)
        self._bar.total = self._total
        self._bar.n = self._already + self.rendered
        self._bar.set_postfix_str(self._remaining_text(), refresh=False)
        self.tick()

    def tick(self) -> None:
        """Show that time passes; call it now and then also while no frame is finished."""
        self._bar.update(0)
        now = time.monotonic()
        if self._live and now - self._last_refresh >= REFRESH_S:
            self._last_refresh = now
            self._bar.set_postfix_str(self._remaining_text())
        if now - self._last_line >= LINE_EVERY_S:
            self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        done = self._already + self.rendered
        percent = 100 * done / self._total if self._total else 100.0
        if not self._live:
            elapsed = duration_text(self._last_line - self._start)
            text = f"frames {done}/{self._total} ({percent:.0f} %), {elapsed} so far, {self._remaining_text()}"
            print(text, file=self._stream, flush=True)
        if self._openjd:
            print(f"openjd_progress: {percent:.1f}", flush=True)

    def _remaining_text(self) -> str:
        if self._already + self.rendered >= self._total:
            return "complete"
        return f"{duration_text(self.remaining_s())} left"
