"""One module per factor, each declaring its ``FACTOR`` (see ``scene/factor.py``); a new file here needs no entry."""
