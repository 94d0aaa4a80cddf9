"""The two libraries only reports need, asked for when a report is written and not before."""

from __future__ import annotations

import importlib

from megasynth_attr.errors import EnvironmentProblem

NEEDED = ("matplotlib", "jinja2")


def require_report_libraries() -> None:
    """Raise EnvironmentProblem naming the first library of the extra ``report`` that cannot be imported."""
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise EnvironmentProblem(
                f"reports need {name}, which cannot be imported ({error}); "
                "install it with: pip install 'megasynth-attr[report]'"
            ) from None
