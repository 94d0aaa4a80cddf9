"""Methods to find the subspace that k updates of one layer share, all in core coordinates."""
