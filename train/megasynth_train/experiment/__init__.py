"""The training half as stages of the generator's pipeline: settings, stages, cost, and the cluster's chapter."""
