"""One module per factor, each registering itself (see ``scene/factor.py``); a new file here is found by itself."""
