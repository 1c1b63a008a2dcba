"""The order of the examples and their random numbers, by position.

A position counts the examples of a run from 0, over all processes and epochs.
All that is random about the example at a position is a pure function of (seed,
position), so that resuming is exact and the number of processes or threads
changes nothing. Philox is counter-based (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), so any position is reached at once.
"""

import functools
import threading

import numpy as np

# Sorting a large epoch takes a while: one thread does it, the others wait.
_lock = threading.Lock()


def shuffled_index(examples: int, seed: int, position: int) -> int:
  """Index of the example at `position`, in a new order for each epoch.

  Args:
    examples: Number of examples in an epoch.
    seed: In [0, 2**64).
    position: Examples before this one, over all epochs.

  Returns:
    An int in [0, examples); each comes once in each epoch.

  >>> sorted(shuffled_index(5, seed=0, position=p) for p in range(5, 10))
  [0, 1, 2, 3, 4]
  """
  epoch, place = divmod(position, examples)
  with _lock:
    return int(_order(examples, seed, epoch)[place])


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


@functools.lru_cache(maxsize=2)  # a batch may reach over an epoch's end
def _order(examples: int, seed: int, epoch: int) -> np.ndarray:
  # NumPy promises that raw bits stay the same in later versions; it does not
  # promise it of Generator.permutation.
  bits = np.random.Philox(key=[seed, epoch + 1])
  return np.argsort(bits.random_raw(examples), kind="stable")
