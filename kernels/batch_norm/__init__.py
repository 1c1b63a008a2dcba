"""Batch norm: scale and offset from moments, and their application."""

from .affine import batch_norm_affine
from .api import batch_norm

__all__ = ["batch_norm", "batch_norm_affine"]
