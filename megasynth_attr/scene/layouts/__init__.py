"""One module per layout: where boxes go. Each offers ``sample(rng, settings, keepout_of) -> Layout``."""
