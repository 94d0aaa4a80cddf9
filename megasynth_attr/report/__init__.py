"""Pictures and pages that show what a dataset contains."""

from megasynth_attr.report.page import write_report
from megasynth_attr.report.pictures import Limits

__all__ = ["Limits", "write_report"]
