"""MegaSynth-Attr: procedural multi-view RGB-D datasets in which one attribute varies and the rest is provably fixed."""

from megasynth_attr.core.early import begin_program_of

__version__ = "0.1.0"

begin_program_of(__name__)
