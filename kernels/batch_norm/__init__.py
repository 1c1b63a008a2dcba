"""Batch norm's affine, and its application with activation and pooling."""

from .affine import batch_norm_affine
from .api import batch_norm

__all__ = ["batch_norm", "batch_norm_affine"]
