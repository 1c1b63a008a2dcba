"""Bad examples in training and evaluation batches."""

import itertools

import numpy as np
import pytest

from podscale.train.data import Skips, eval_batches, train_batches
from podscale.train.data.source import BadExampleError, Decoding
from podscale.train.errors import UsageError

SIZE = 4


class Holed:
  """A source of twelve numbered examples, some of them bad."""

  class_names = None
  mean = std = (1.0, 1.0, 1.0)
  eval_padding = 0
  decoding = Decoding()
  num_classes = 12
  listing = "twelve numbers"

  def __init__(self, *bad):
    self._bad = bad

  def __len__(self):
    return 12

  def __getitem__(self, index):
    if index in self._bad:
      raise BadExampleError("no image in it")
    return {
      "image": np.full((SIZE, SIZE, 3), index, np.uint8),
      "label": index,
    }

  def where(self, index):
    return f"shard, record {index}"


def train(source, skips=None):
  return train_batches(
    source,
    batch_size=4,
    resolution=SIZE,
    seed=0,
    crop="none",
    flip=False,
    skips=skips,
  )


def checked(source, skips=None):
  eval_batches(source, batch_size=4, resolution=SIZE, skips=skips).check()


def evaluated(source, skips=None):
  batches = eval_batches(source, batch_size=4, resolution=SIZE, skips=skips)
  return np.concatenate([batch["label"] for batch in batches]).tolist()


@pytest.mark.parametrize("run", [checked, evaluated, lambda s: list(train(s))])
def test_the_first_bad_example_stops_with_place_reason_and_cure(run):
  with pytest.raises(UsageError) as error:
    run(Holed(5))
  assert str(error.value) == (
    "shard, record 5: no image in it; exceeded --data.skip-bad 0, "
    "give a larger number to skip bad images"
  )


def test_training_takes_the_next_good_one():
  skips = Skips(3)
  batches = list(itertools.islice(train(Holed(5, 6, 11), skips), 6))
  labels = np.concatenate([batch["label"] for batch in batches])
  # 7 stands in for 5 and 6, and 0 for 11, the last example; in two epochs.
  want = [0, 0, 1, 2, 3, 4, 7, 7, 7, 8, 9, 10]
  assert sorted(labels[:12]) == sorted(labels[12:]) == want
  images = np.concatenate([batch["image"] for batch in batches])
  np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
  assert len(skips) == 3  # not six: the second epoch has the same


def test_evaluation_leaves_it_out():
  skips = Skips(2)
  assert evaluated(Holed(5, 6), skips) == [
    *(0, 1, 2, 3, 4, -1, -1, 7, 8, 9, 10, 11)
  ]
  assert skips.summary() == (
    "skipped 2 bad examples: shard, record 5: no image in it; "
    "shard, record 6: no image in it"
  )


def test_one_too_many_stops():
  with pytest.raises(
    UsageError, match="no image in it; exceeded --data.skip-bad 2,"
  ):
    evaluated(Holed(1, 5, 6), Skips(2))


def test_nothing_good_at_all_ends():
  with pytest.raises(UsageError, match="none of the 12 training images"):
    next(train(Holed(*range(12)), Skips(100)))


def test_what_a_check_has_counted_an_evaluation_does_not_count_again():
  skips = Skips(2)
  source = Holed(3, 11)
  checked(source, skips)
  assert len(skips) == 2
  assert evaluated(source, skips) == [0, 1, 2, -1, *range(4, 11), -1]
  assert len(skips) == 2


class WithFile(Holed):
  """A source with this file as one example."""

  def __init__(self, file):
    super().__init__()
    self._file = file

  def __getitem__(self, index):
    return super().__getitem__(index) | (
      {"image": self._file} if index == 5 else {}
    )


@pytest.mark.parametrize(
  "file", [b"", b"no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]
)
def test_a_check_finds_files_without_a_header(file):
  with pytest.raises(UsageError, match="shard, record 5: "):
    checked(WithFile(file))
  skips = Skips(1)
  checked(WithFile(file), skips)
  assert "shard, record 5" in skips.summary()


def test_a_check_finds_labels_of_no_class():
  class Mislabelled(Holed):
    def __getitem__(self, index):
      if index == 7:
        raise UsageError("label 12 is of no class")  # as `EncodedImages` does
      return super().__getitem__(index)

  with pytest.raises(UsageError, match="label 12"):
    checked(Mislabelled(), Skips(12))


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 8, 16])
def test_processes_share_a_check(process_count, batch_size):
  """The shares equal those of the evaluation, so a cache serves both."""
  read = []

  class Recorded(Holed):
    def __getitem__(self, index):
      read.append(index)
      return super().__getitem__(index)

  for process in range(process_count):
    batches = eval_batches(
      Recorded(),
      batch_size=batch_size,
      resolution=SIZE,
      process_index=process,
      process_count=process_count,
    )
    read.clear()
    batches.check()
    in_check = sorted(read)
    read.clear()
    evaluated_labels = np.concatenate([b["label"] for b in batches])
    assert in_check == sorted(read)
    assert in_check == [label for label in evaluated_labels if label >= 0]
