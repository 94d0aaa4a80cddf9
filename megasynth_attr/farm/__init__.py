"""Running many scenes: workers, the local pool, Slurm and job templates."""
