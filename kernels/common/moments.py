"""The batch-norm statistics of a tensor, as a value that can be merged."""

from typing import NamedTuple

import jax
import numpy as np


class Moments(NamedTuple):
  """Per-channel count, mean and sum of squared deviations.

  Two sets of moments over disjoint values merge without cancellation (Chan,
  Golub and LeVeque 1979), and divide only once, at the end:
  `variance = m2 / count`.

  Attributes:
    count: float32 scalar; the number of values per channel. A NumPy scalar
      where an op returns it, so that what depends on it is known in tracing.
    mean: float32 `[c]`.
    m2: float32 `[c]`; the sum of squared deviations from `mean`.
  """

  count: jax.Array | np.floating  # type: ignore[assignment]  # tuple.count
  mean: jax.Array
  m2: jax.Array
