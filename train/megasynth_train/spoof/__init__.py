"""Face anti-spoofing by geometry: how flat a model makes printed faces, and how flat real heads."""
