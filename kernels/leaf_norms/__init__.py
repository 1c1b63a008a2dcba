"""Euclidean norm of each leaf of a packed tree."""

from .api import leaf_norms

__all__ = ["leaf_norms"]
