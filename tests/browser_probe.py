"""A real headless Chromium, spoken to over its DevTools pipe: true mouse, touch and key events, pixels, what it loaded.

The standard library suffices: messages are JSON, one per NUL byte, on the browser's file descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",  # containers have 64 MB of it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
TIMEOUT_S = 30


def find_chromium() -> str:
    """Return the program; without one the test is skipped, or fails where CI=true."""
    found = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if found is None:
        reason = "no Chromium on this machine, the pages were not opened; install it with: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def running_chromium(profile: Path) -> Iterator[Chromium]:
    """Start a browser with a fresh profile and end it with the block."""
    program = find_chromium()
    (commands_out, commands_in), (answers_out, answers_in) = os.pipe(), os.pipe()
    # Above 4, so that neither dup2 below overwrites what the other one needs
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (commands_out, answers_in)]
    os.close(commands_out)
    os.close(answers_in)

    def place_descriptors() -> None:
        os.dup2(theirs[0], 3)
        os.dup2(theirs[1], 4)

    with (profile.parent / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place_descriptors,
            close_fds=False,  # all others are closed on exec as it is
            stdout=log,
            stderr=log,
        )
    for fd in theirs:
        os.close(fd)
    try:
        yield Chromium(commands_in, answers_out)
    finally:
        process.terminate()
        try:
            process.wait(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(commands_in)
        os.close(answers_out)


class Chromium:
    """The running browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._buffer, self._last = commands, answers, b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send one command, wait for its answer, keep the events that come before it."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], TIMEOUT_S)
            assert ready, f"the browser did not answer within {TIMEOUT_S} s"
            chunk = os.read(self._answers, 1 << 20)
            assert chunk, "the browser ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    @contextmanager
    def page(
        self, url: str, width: int = 1280, height: int = 900, *, scale: float = 1, mobile: bool = False, **media: str
    ) -> Iterator[Page]:
        """Open ``url`` in a window of this size in CSS px; ``media``: prefers_color_scheme="dark" and the like."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        page.call("Emulation.setTouchEmulationEnabled", enabled=mobile)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        page.call("Emulation.setEmulatedMedia", features=features)
        page.call("Page.navigate", url=url)
        page.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")
        page.settle()
        try:
            yield page
        finally:
            self.call("Target.closeTarget", targetId=target)


class Page:
    """One page of the browser."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        """Return the value (JSON) of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not self.evaluate(condition):
            assert time.monotonic() < end, f"{condition} did not become true within {TIMEOUT_S} s"
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait for two frames: what was asked to be drawn is drawn."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def events(self, *methods: str) -> list[dict[str, Any]]:
        found = [e for e in self._browser.events if e.get("sessionId") == self._session and e["method"] in methods]
        return [event["params"] for event in found]

    def complaints(self) -> list[str]:
        """Return exceptions and all that was written to the console or the log."""
        methods = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event) for event in self.events(*methods)]

    def requested(self) -> list[str]:
        """Return every address the page asked for, its own included."""
        return [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]

    def pixels(self, canvas: str) -> np.ndarray:
        """Return the H×W×3 uint8 contents of a 2D canvas."""
        drawn = self.evaluate(f"document.querySelector({json.dumps(canvas)}).toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.partition(",")[2]))).convert("RGB"))

    def screenshot(self, *, whole: bool = False) -> np.ndarray:
        """Return what is seen, or the whole page, H×W×3 uint8."""
        png = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))

    def centre(self, selector: str) -> tuple[float, float]:
        """Scroll an element into view and return its middle in px of the window."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        return float(box[0]), float(box[1])

    def click(self, selector: str) -> None:
        self.drag(selector, 0, 0)

    def drag(self, selector: str, dx: float, dy: float, **extra: Any) -> None:
        """Press the mouse in the middle of an element, move by (dx, dy) px, release; extra: button, modifiers."""
        x, y = self.centre(selector)
        held = {"button": "left", "clickCount": 1} | extra
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **held)
        if dx or dy:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + dx / 2, y=y + dy / 2, **held)
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + dx, y=y + dy, **held)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x + dx, y=y + dy, **held)
        self.settle()

    def key(self, key: str, *, modifiers: int = 0) -> None:
        """Press and release a key ("ArrowLeft", "+", "Tab"); modifiers: 8 is Shift."""
        codes = {"Tab": 9, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        pressed = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": codes.get(key, 0)}
        self.call("Input.dispatchKeyEvent", type="keyDown", **pressed, **({"text": key} if len(key) == 1 else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)
        self.settle()
