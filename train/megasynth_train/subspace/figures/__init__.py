"""Figures and report of a subspace analysis, from analysis.json alone, without adapters, model or network."""

from megasynth_train.subspace.figures.page import write_report
from megasynth_train.subspace.figures.words import chapter, summary

__all__ = ["chapter", "summary", "write_report"]
