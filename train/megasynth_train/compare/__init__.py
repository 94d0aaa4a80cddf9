"""Comparing methods of fine-tuning on the same data, seeds and budget: ``python -m megasynth_train.compare``."""
