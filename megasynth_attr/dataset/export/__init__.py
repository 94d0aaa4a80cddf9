"""Exporters to the layouts other programs read."""
