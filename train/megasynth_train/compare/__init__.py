"""Compare fine-tuning methods on the same data, seeds and budget: ``python -m megasynth_train.compare``."""
