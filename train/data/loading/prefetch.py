"""Batches that a pool of threads makes ahead of time."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np

Batch = dict[str, np.ndarray]
"""{"image": uint8 [n, h, w, 3], "label": int32 [n]}; label -1 is padding. For
augmentation on the device also the operations, see `device_augment`."""

_AHEAD = 2
_CHUNK = 16


def prefetch(
  fill: Callable[[Batch, int], None],
  positions: Iterable[int],
  new_batch: Callable[[], Batch],
) -> Iterator[Batch]:
  """Yield a batch for each position, with two more in progress.

  An error in a thread is raised here, at the turn of its batch. Closing the
  iterator waits for the examples in progress and drops the rest.

  Args:
    fill: Function that many threads call as `fill(part, position)`, to write
      the examples from `position` on into at most 16 rows of a batch.
    positions: Position of the first example of each batch.
    new_batch: Function that allocates the arrays of a batch.

  Yields:
    Batches in order. Each has arrays of its own, because JAX may keep them.
  """
  one_thread_per_image()
  pool = ThreadPoolExecutor(cores(), thread_name_prefix="podscale-data")

  def start(position: int) -> tuple[Batch, list[Future]]:
    batch = new_batch()
    work = [
      pool.submit(
        fill, {k: v[i : i + _CHUNK] for k, v in batch.items()}, position + i
      )
      for i in range(0, len(batch["label"]), _CHUNK)
    ]
    return batch, work

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


def one_thread_per_image() -> None:
  """Keep OpenCV from splitting an image: each core works on its own image."""
  cv2.setNumThreads(1)


def cores() -> int:
  """Count the cores that this process may use; as many threads fill batches."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
