"""Camera families: how a trajectory is drawn. One module per family."""
