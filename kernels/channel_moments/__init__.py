"""Moments of each channel of an activation."""

from .api import channel_moments

__all__ = ["channel_moments"]
