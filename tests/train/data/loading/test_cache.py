"""The cache of examples and its size."""

import threading

import numpy as np

from podscale.train.data import (
  ShuffledInShards,
  Synthetic,
  open_source,
  train_batches,
)
from podscale.train.data.loading.cache import InMemory, free_memory
from podscale.train.settings.config import DataConfig


class Counting(Synthetic):
  """A source that counts its reads."""

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.reads = []

  def __getitem__(self, index):
    self.reads.append(index)
    return super().__getitem__(index)


def test_each_example_is_read_once():
  source = Counting(6, resolution=8)
  kept = InMemory(source, most_bytes=10_000)
  for _ in range(3):
    for i in range(6):
      np.testing.assert_array_equal(
        kept[i]["image"], Synthetic(6, resolution=8)[i]["image"]
      )
  assert sorted(source.reads) == list(range(6))
  assert kept.bytes == 6 * 8 * 8 * 3
  assert (kept.mean, kept.num_classes) == (source.mean, 10)
  assert kept.where(3) == source.where(3)


def test_what_does_not_fit_is_read_again():
  source = Counting(6, resolution=8)
  kept = InMemory(source, most_bytes=2 * 192 + 100)
  for _ in range(3):
    for i in range(6):
      kept[i]
  assert kept.bytes == 2 * 192
  assert [source.reads.count(i) for i in range(6)] == [1, 1, 3, 3, 3, 3]


def test_what_two_threads_read_at_a_time_is_kept_once():
  both = threading.Barrier(2, timeout=60)

  class Slow(Counting):
    def __getitem__(self, index):
      example = super().__getitem__(index)
      both.wait()
      return example

  source = Slow(2, resolution=8)
  kept = InMemory(source, most_bytes=10_000)
  threads = [threading.Thread(target=kept.__getitem__, args=[1]) for _ in "ab"]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert source.reads == [1, 1]
  assert kept.bytes == 8 * 8 * 3
  assert kept[1] is kept[1]
  assert source.reads == [1, 1]


def test_a_process_reads_only_its_share():
  source = Counting(64, resolution=8)
  batches = train_batches(
    InMemory(source, most_bytes=100_000),
    batch_size=16,
    resolution=8,
    seed=0,
    crop="none",
    flip=False,
    order=ShuffledInShards(64, seed=0, batch_size=16),
    process_index=1,
    process_count=4,
  )
  for _ in range(20):
    next(batches)
  batches.close()
  # Threads may read the same at the same time.
  assert set(source.reads) == set(range(16, 32))


def test_the_setting_wraps_any_source():
  source = open_source(DataConfig(source="synthetic", cache=True), "train", 8)
  assert source[0] is source[0]


def test_free_memory_is_some_but_not_all():
  with open("/proc/meminfo", encoding="ascii") as lines:
    total = int(next(lines).split()[1]) * 1024
  assert 0 < free_memory() < total
