import math

import jax
import numpy as np

from podscale.model.initial_weights import draw_weights


def test_weights_are_normal_and_not_truncated():
  values = np.asarray(draw_weights(jax.random.key(0), (100, 1000), fan_out=50))
  assert values.dtype == np.float32
  n, std = values.size, 0.2
  # Mean and mean square of n normal numbers deviate by std / sqrt(n) and
  # std**2 * sqrt(2 / n); one in two million seeds exceeds five deviations.
  values = np.float64(values)
  assert abs(values.mean()) <= 5 * std / math.sqrt(n)
  assert abs((values**2).mean() - std**2) <= 5 * std**2 * math.sqrt(2 / n)
  # 6 in 100,000 lie beyond four deviations, none of a truncated normal.
  assert np.abs(values).max() > 4 * std
