"""Errors and early ends in the background threads."""

import threading
import time

import numpy as np
import pytest

from podscale.train.data.loading.prefetch import prefetch


def fill_with_position(part, position):
  labels = part["label"]
  labels[:] = np.arange(position, position + len(labels))
  part["image"][:] = labels[:, None, None, None] % 256


def run(fill, positions, batch_size=40):
  def new_batch():
    return {
      "image": np.zeros((batch_size, 4, 4, 3), np.uint8),
      "label": np.zeros(batch_size, np.int32),
    }

  return prefetch(fill, positions, new_batch)


def data_threads():
  return [t for t in threading.enumerate() if t.name.startswith("podscale")]


def test_batches_come_in_order_and_in_arrays_of_their_own():
  batches = list(run(fill_with_position, range(0, 200, 40)))
  labels = np.concatenate([b["label"] for b in batches])
  assert labels.tolist() == list(range(200))
  assert not np.shares_memory(batches[0]["image"], batches[1]["image"])


def test_a_failure_surfaces_at_its_batch():
  def fill(part, position):
    if position >= 96:  # the second chunk of the third batch
      raise RuntimeError(f"broken at {position}")
    fill_with_position(part, position)

  batches = run(fill, range(0, 400, 40))
  assert next(batches)["label"][0] == 0
  assert next(batches)["label"][0] == 40
  with pytest.raises(RuntimeError, match="broken at 96"):
    next(batches)
  assert not data_threads()


def test_two_batches_are_made_ahead():
  begun = []
  ready = threading.Semaphore(0)

  def fill(part, position):
    begun.append(position)
    ready.release()

  batches = run(fill, range(0, 80, 8), batch_size=8)
  next(batches)
  for _ in range(3):
    assert ready.acquire(timeout=60)
  assert sorted(begun) == [0, 8, 16]
  batches.close()


@pytest.mark.timeout(60)
def test_closing_ends_the_threads():
  batches = run(fill_with_position, range(0, 4000, 40))
  next(batches)
  assert data_threads()
  batches.close()
  assert not data_threads()
  assert next(batches, None) is None


@pytest.mark.timeout(60)
def test_closing_drops_what_was_not_begun():
  begun = []

  def fill(part, position):
    begun.append(position)
    if position >= 1600:
      time.sleep(0.01)

  batches = run(fill, range(0, 16000, 1600), batch_size=1600)
  next(batches)
  batches.close()
  # 100 chunks in each of three batches; the last 200 would take a second.
  assert 100 <= len(begun) < 300
