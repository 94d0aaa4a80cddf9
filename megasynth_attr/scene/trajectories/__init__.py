"""Camera families, one module each: ``sample_…(rng, settings, draw)`` returns positions N×3 and quaternions N×4."""
