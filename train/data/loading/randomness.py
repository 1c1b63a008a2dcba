"""Random numbers of the examples, by position.

The random numbers of an example are a pure function of (seed, position), see
`order`. Philox is counter-based (Salmon et al. 2011, "Parallel random numbers:
as easy as 1, 2, 3"), so any position is reached at once.
"""

import numpy as np


def uniform_numbers(
  seed: int, position: int, count: int, width: int
) -> np.ndarray:
  """Draw the random numbers of `count` examples from `position` on.

  Args:
    seed: Seed in [0, 2**64).
    position: Position of the first example.
    count: Number of examples.
    width: Random numbers for each example, a multiple of 4.

  Returns:
    Numbers in [0, 1), float64 [count, width].

  >>> later = uniform_numbers(0, position=3, count=1, width=4)
  >>> bool((uniform_numbers(0, position=0, count=4, width=4)[3] == later).all())
  True
  """
  bits = np.random.Philox(key=[seed, 0])
  bits.advance(position * width // 4)  # Philox makes four numbers at a time
  return _floats(bits.random_raw(count * width)).reshape(count, width)


def _floats(raw: np.ndarray) -> np.ndarray:
  return (raw >> np.uint64(11)) * 2.0**-53
