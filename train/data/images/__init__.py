"""Data sets of image files: folders, TFRecord, ArrayRecord and tar shards."""

from .opening import open_images

__all__ = ["open_images"]
