"""One module per factor that is built in Blender: its ``build(stage, data)`` is found by the factor's name."""
