"""Figures and report of a subspace analysis, from analysis.json alone: no adapter, no model, no network is needed."""

from megasynth_train.subspace.figures.page import write_report
from megasynth_train.subspace.figures.words import chapter, summary

__all__ = ["chapter", "summary", "write_report"]
