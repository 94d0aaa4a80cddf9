"""Human-like meshes of no real person, in the layouts of published scans: for tests, the demo and printed faces."""
