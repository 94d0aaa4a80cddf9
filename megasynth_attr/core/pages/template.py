"""Pages from templates: one environment, one frame (``base.html``), one style sheet for the whole project."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from megasynth_attr.core.errors import importing
from megasynth_attr.core.pages.words import count_text, in_words, number_text, short, signed_text, size_text

SHARED = Path(__file__).parent / "templates"


def require_report_libraries(*names: str, what: str = "reports", otherwise: str = "") -> None:
    """Raise EnvironmentProblem naming the first library of the extra ``report`` that cannot be imported.

    To be called only when a page is written. Without ``names`` all are checked; ``what`` is what needs them;
    ``otherwise`` ends the message with an alternative.
    """
    for name in names or ("matplotlib", "jinja2"):
        with importing(
            f"{what} need{'' if what.endswith('s') else 's'} {name}, which cannot be imported ({{error}}); "
            f"install it with: pip install 'megasynth-attr[report]'{otherwise}"
        ):
            importlib.import_module(name)


def render(folder: Path, template: str, **values: Any) -> str:
    """Return ``template`` of ``folder`` filled with ``values``; it may extend and include the shared ones.

    Text is escaped, what is not UTF-8 in it (as folder names may hold) becomes "?", and an undefined name is an error.
    The filters are the functions of ``pages/words.py``.
    """
    return _environment(folder).get_template(template).render(**values).encode("utf-8", "replace").decode()


@cache
def _environment(folder: Path) -> Any:
    """Return what fills the templates of ``folder``; kept, because compiling them takes longer than filling them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": size_text, "number": number_text, "count": count_text, "words": in_words}
    environment.filters |= {"short": short, "signed": signed_text}
    return environment
