"""What is trained: all weights or one kind of adapter, as ``AdapterSettings`` say."""

from megasynth_train.adapters.adapted import Adapted
from megasynth_train.adapters.inject import adapt, trainable_counts
from megasynth_train.adapters.load import load_adapter
from megasynth_train.adapters.storage import save_adapter

__all__ = ["Adapted", "adapt", "load_adapter", "save_adapter", "trainable_counts"]
