"""Makes docs/images/view.webp: the page of ``megasynth_attr.dataset.view`` in a real Chromium, seen from outside.

    python -m megasynth_attr.pipeline preset=geometry datasets=0 scenes=0-1 frames=32 render.width_px=252 \\
        render.height_px=252 quality=draft stages=generate out=runs/view
    python -m megasynth_attr.dataset.view dataset=runs/view/geometry_00 out=runs/view.html
    python tools/view_picture.py runs/view.html docs/images/view.webp
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from browser_probe import running_chromium

FRAME = 6


def main(page_file: str, target: str) -> None:
    with tempfile.TemporaryDirectory() as folder, running_chromium(Path(folder) / "profile") as browser:
        url = Path(page_file).absolute().as_uri()
        with browser.page(url, 1000, 740, prefers_reduced_motion="reduce", prefers_color_scheme="light") as page:
            page.evaluate("document.querySelector('#frame').focus()")
            for _ in range(FRAME):
                page.key("ArrowRight")
            page.evaluate("document.querySelector('#overview').click()")
            page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
            page.evaluate("new Promise((done) => setTimeout(done, 400))")  # all points are drawn when motion has ended
            Image.fromarray(page.screenshot()).save(target, quality=85, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:])
