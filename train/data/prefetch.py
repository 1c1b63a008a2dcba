"""Batches made ahead of time by a pool of threads."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

Batch = dict[str, np.ndarray]
"""{"image": uint8 [n, h, w, 3], "label": int32 [n]}; label -1 is padding."""

_AHEAD = 2
_CHUNK = 16


def prefetch(
  fill: Callable[[np.ndarray, np.ndarray, int], None],
  positions: Iterable[int],
  *,
  batch_size: int,
  resolution: int,
) -> Iterator[Batch]:
  """Yield a batch for each position, two of them under way in the background.

  What fails in a thread is raised here, when the failed batch's turn comes.
  Closing the iterator waits for the examples begun and drops the rest.

  Args:
    fill: Called as `fill(images, labels, position)` from many threads, to write
      the examples from `position` on into images [k, resolution, resolution, 3]
      (zeros before) and labels [k] (-1 before); k is at most 16.
    positions: Of the first example of each batch.
    batch_size: Examples in a batch.
    resolution: Height and width, in pixels.

  Yields:
    Batches in order, in arrays of their own, as JAX may hold on to them.
  """
  pool = ThreadPoolExecutor(cores(), thread_name_prefix="podscale-data")

  def start(position: int) -> tuple[Batch, list[Future]]:
    images = np.zeros((batch_size, resolution, resolution, 3), np.uint8)
    labels = np.full(batch_size, -1, np.int32)
    work = [
      pool.submit(
        fill, images[i : i + _CHUNK], labels[i : i + _CHUNK], position + i
      )
      for i in range(0, batch_size, _CHUNK)
    ]
    return {"image": images, "label": labels}, work

  def finish(batch: Batch, work: list[Future]) -> Batch:
    for part in work:
      part.result()
    return batch

  under_way: collections.deque[tuple[Batch, list[Future]]] = collections.deque()
  try:
    for position in positions:
      under_way.append(start(position))
      if len(under_way) > _AHEAD:
        yield finish(*under_way.popleft())
    while under_way:
      yield finish(*under_way.popleft())
  finally:
    pool.shutdown(cancel_futures=True)


def cores() -> int:
  """How many this process may use: as many threads fill batches."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
