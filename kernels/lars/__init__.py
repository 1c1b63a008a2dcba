"""Layer-wise adaptive rate scaling, as in TensorFlow's EfficientNet."""

from .api import lars_steps, lars_update

__all__ = ["lars_steps", "lars_update"]
