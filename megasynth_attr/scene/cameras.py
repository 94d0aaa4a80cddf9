"""The part of the camera factor that geometry needs: where cameras may be."""

from megasynth_attr.scene.factors.camera import camera_region

__all__ = ["camera_region"]
