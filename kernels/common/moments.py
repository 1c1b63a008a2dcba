"""Batch-norm statistics of an array, in a form that can be merged."""

from typing import NamedTuple

import jax
import numpy as np


class Moments(NamedTuple):
  """Per-channel count, mean and sum of squared deviations.

  Moments of disjoint values merge without cancellation (Chan, Golub and LeVeque
  1979). The variance is `m2 / count`.

  Attributes:
    count: Number of values per channel, float32 scalar. Ops return a NumPy
      scalar, so that the count is known in tracing.
    mean: Mean of each channel, float32 `[c]`.
    m2: Sum of squared deviations from `mean`, float32 `[c]`.
  """

  count: jax.Array | np.floating  # type: ignore[assignment]  # tuple.count
  mean: jax.Array
  m2: jax.Array
