"""Data sets of image files: class folders and shards."""

from .opening import open_images

__all__ = ["open_images"]
