"""Datasets on disk: paths, writer, reader, verification and exporters."""
