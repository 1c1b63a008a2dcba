"""A cache of examples in memory."""

import os
import threading

from ..source import Example, Source


class InMemory:
  """A source that keeps its examples in memory once read, while they fit.

  The cache keeps files, not pixels: a fifth of the bytes. Threads that ask for
  the same example at the same time may each read it; the cache keeps one.

  Args:
    source: Source to read from.
    most_bytes: Largest size of the cache; further examples are read each time.

  >>> from podscale.train.data import Synthetic
  >>> kept = InMemory(Synthetic(4, resolution=8), most_bytes=1_000)
  >>> kept[1] is kept[1], len(kept), kept.bytes
  (True, 4, 192)
  """

  def __init__(self, source: Source, most_bytes: int):
    self._source = source
    self._most_bytes = most_bytes
    self._examples: dict[int, Example] = {}
    self._lock = threading.Lock()
    self.bytes = 0
    """Size of the images in the cache."""
    self.num_classes = source.num_classes
    self.class_names = source.class_names
    self.mean = source.mean
    self.std = source.std
    self.eval_padding = source.eval_padding
    self.description = source.description
    self.left_out = source.left_out
    self.decoding = source.decoding
    self.listing = source.listing

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Example:
    kept = self._examples.get(index)
    if kept is not None:
      return kept
    example = self._source[index]
    image = example["image"]
    size = len(image) if isinstance(image, bytes) else image.nbytes
    with self._lock:
      fits = self.bytes + size <= self._most_bytes
      if fits and index not in self._examples:
        self._examples[index] = example
        self.bytes += size
    return example

  def where(self, index: int) -> str:
    """Name the place of an example, see `Source.where`."""
    return self._source.where(index)


def free_memory() -> int:
  """Read the system's estimate of its free memory, in bytes."""
  try:
    with open("/proc/meminfo", encoding="ascii") as lines:
      sizes = dict(line.split(":") for line in lines)
    return int(sizes["MemAvailable"].split()[0]) * 1024
  except (OSError, KeyError):
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
