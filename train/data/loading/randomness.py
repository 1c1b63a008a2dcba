"""The random numbers of the examples, by position.

All that is random about the example at a position is a pure function of (seed,
position), see `order`. Philox is counter-based (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"), so any position is reached at once.
"""

import numpy as np


def uniform_numbers(
  seed: int, position: int, count: int, width: int
) -> np.ndarray:
  """Random numbers for `count` examples from `position` on.

  Args:
    seed: In [0, 2**64).
    position: Of the first example.
    count: Number of examples.
    width: Numbers for each example, a multiple of 4.

  Returns:
    float64 [count, width], in [0, 1).

  >>> later = uniform_numbers(0, position=3, count=1, width=4)
  >>> bool((uniform_numbers(0, position=0, count=4, width=4)[3] == later).all())
  True
  """
  bits = np.random.Philox(key=[seed, 0])
  bits.advance(position * width // 4)  # Philox makes four numbers at a time
  return _floats(bits.random_raw(count * width)).reshape(count, width)


def _floats(raw: np.ndarray) -> np.ndarray:
  return (raw >> np.uint64(11)) * 2.0**-53
