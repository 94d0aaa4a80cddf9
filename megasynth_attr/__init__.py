"""MegaSynth-Attr: procedural multi-view RGB-D datasets in which one attribute varies and the rest is provably fixed."""

__version__ = "0.1.0"
