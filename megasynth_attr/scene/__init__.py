"""What is in a scene, decided in plain NumPy before Blender runs. Needs NumPy and SciPy only."""
