"""The training half: VGGT, one adapter per isolated-variation dataset, and the evaluation of both.

It shares nothing with the generator but files: datasets are read through ``megasynth_attr.dataset.reader``.
"""

from megasynth_attr.core.early import begin_program_of

begin_program_of(__name__, "[train]")
