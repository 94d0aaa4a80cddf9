"""Mining the subspace that an attribute occupies in a cluster of adapters, and comparing such subspaces.

NumPy and SciPy only, in float64. docs/subspaces.md describes the method on one page.
"""
