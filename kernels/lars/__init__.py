"""Layer-wise adaptive rate scaling, as TensorFlow's EfficientNet has it."""

from .api import lars_steps, lars_update

__all__ = ["lars_steps", "lars_update"]
