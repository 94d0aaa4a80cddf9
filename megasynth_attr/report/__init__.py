"""Pictures and pages that show what a dataset contains."""
