"""One module per layout: where boxes go. Each offers ``sample(rng, settings, counts, keepout_of) -> Layout``, and
``LARGE`` and ``SMALL``, its default numbers of boxes."""
