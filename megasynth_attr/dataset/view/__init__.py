"""Looking at scenes in three dimensions: a page in one file, or a recording for rerun."""
