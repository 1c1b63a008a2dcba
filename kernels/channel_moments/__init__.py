"""The moments of each channel of an image."""

from .api import channel_moments

__all__ = ["channel_moments"]
