"""One module per factor; each registers itself (see ``scene/factor.py``). A new module in this folder is found by itself."""
