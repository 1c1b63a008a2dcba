"""The ways to do a training step that are judged side by side."""

from typing import Literal, get_args

Way = Literal["plain", "best", "xla", "pallas_tpu"]
WAYS: tuple[Way, ...] = get_args(Way)
"""The same recipe in plain JAX; as it is run; all ops by XLA; kernels wherever
they can do it."""
