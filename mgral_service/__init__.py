"""MGRAL as a service: performance-guided reinforced active learning for object detection."""

__version__ = "0.1.0"
