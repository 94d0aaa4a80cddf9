"""The only place that imports bpy: builds a scene in Blender and renders its views."""
