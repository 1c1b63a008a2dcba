"""Order, sharing, resuming and padding of the batches."""

import itertools
import json
import random
import time

import numpy as np
import pytest

from podscale.train.data import eval_batches, train_batches
from podscale.train.data.source import Decoding
from podscale.train.errors import UsageError

SIZE = 8


class Numbered:
  """A source whose image i shows i, and left from right."""

  class_names = None
  mean = std = (1.0, 1.0, 1.0)
  eval_padding = 0
  decoding = Decoding()

  def __init__(self, examples, sleep=0.0):
    self.num_classes = examples
    self._sleep = sleep
    self.listing = f"{examples} numbers"

  def __len__(self):
    return self.num_classes

  def __getitem__(self, index):
    assert 0 <= index < self.num_classes
    time.sleep(random.uniform(0, self._sleep))
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[..., 0] = index + 1
    image[..., 1] = np.arange(SIZE)
    image[..., 2] = np.arange(SIZE)[:, None]
    return {"image": image, "label": index}

  def where(self, index):
    return f"example {index}"


def train(source, **settings):
  defaults = dict(
    batch_size=8, resolution=SIZE, seed=3, crop="resized", flip=True
  )
  return train_batches(source, **(defaults | settings))


def take(batches, count):
  return list(itertools.islice(batches, count))


def assert_same(got, want):
  assert len(got) == len(want)
  for a, b in zip(got, want, strict=True):
    np.testing.assert_array_equal(a["image"], b["image"])
    np.testing.assert_array_equal(a["label"], b["label"])


def test_batches_are_uint8_images_and_int32_labels():
  batch = next(train(Numbered(20), batch_size=6))
  assert batch["image"].shape == (6, SIZE, SIZE, 3)
  assert batch["image"].dtype == np.uint8
  assert batch["label"].shape == (6,)
  assert batch["label"].dtype == np.int32


# 13 and 8 share no factor, so batches reach over the ends of epochs; 20 is
# larger than an epoch; 40 is made in several chunks.
@pytest.mark.parametrize("batch_size", [1, 8, 13, 20, 40])
def test_each_example_comes_once_in_each_epoch(batch_size):
  examples, epochs = 13, 5
  batches = train(Numbered(examples), batch_size=batch_size)
  steps = -(-examples * epochs // batch_size)
  labels = np.concatenate([b["label"] for b in take(batches, steps)])
  orders = labels[: examples * epochs].reshape(epochs, examples)
  for order in orders:
    assert sorted(order) == list(range(examples))
  assert len({tuple(order) for order in orders}) == epochs


def test_image_and_label_belong_together():
  for batch in take(train(Numbered(50), crop="none"), 10):
    np.testing.assert_array_equal(
      batch["image"][:, 0, 0, 0], batch["label"] + 1
    )


def test_another_seed_gives_another_order_and_other_crops():
  labels = [next(train(Numbered(50), seed=s))["label"] for s in (0, 1)]
  assert (labels[0] != labels[1]).any()
  images = [next(train(Numbered(1), seed=s))["image"] for s in (0, 1)]
  assert (images[0] != images[1]).any()


def test_a_repeated_example_is_varied_anew():
  images = next(train(Numbered(1)))["image"]
  # So few pixels have few places for a crop: two of these eight are the same.
  assert len({image.tobytes() for image in images}) > len(images) // 2


def test_batches_do_not_depend_on_thread_timing():
  plain = take(train(Numbered(50), batch_size=64), 3)
  slow = take(train(Numbered(50, sleep=0.002), batch_size=64), 3)
  assert_same(slow, plain)


# 13 examples in batches of 8: steps 1, 2 and 4 end within an epoch, and no
# batch of the first seven ends at the end of one.
@pytest.mark.parametrize("before", [0, 1, 2, 4])
def test_resume_is_exact(before):
  straight = take(train(Numbered(13)), before + 5)
  first = train(Numbered(13))
  take(first, before)
  state = json.loads(json.dumps(first.state()))
  resumed = train(Numbered(13))
  resumed.restore(state)
  assert resumed.state() == state
  assert_same(take(resumed, 5), straight[before:])


def test_restore_goes_back_as_well():
  batches = train(Numbered(13))
  state = batches.state()
  straight = take(batches, 4)
  batches.restore(state)
  assert_same(take(batches, 4), straight)


def test_a_state_of_other_data_or_seed_is_refused():
  state = train(Numbered(13)).state()
  with pytest.raises(UsageError, match="examples 13, this run has 14"):
    train(Numbered(14)).restore(state)
  with pytest.raises(UsageError, match="seed 3, this run has 4"):
    train(Numbered(13), seed=4).restore(state)
  others = Numbered(13)
  others.listing = "13 others"
  with pytest.raises(UsageError, match="has listing 13 numbers, this run has"):
    train(others).restore(state)


@pytest.mark.parametrize(
  "change",
  [
    *({"position": p} for p in (-8, 4, 8.0, "8", True, None, [8], 8 * 2**61)),
    *({"seed": seed} for seed in ("3", 3.0, None, True)),
    *({"examples": count} for count in ("13", 13.0, None)),
    *({"listing": listing} for listing in (None, 13, ["13 numbers"])),
    {"posit": 8},
  ],
)
def test_what_is_no_state_is_refused(change):
  batches = train(Numbered(13))
  take(batches, 1)
  state = batches.state()
  batches.check(state)
  with pytest.raises(ValueError, match="data state"):
    batches.check(state | change)
  with pytest.raises(ValueError, match="data state"):
    batches.restore(state | change)


@pytest.mark.parametrize(
  "state",
  [None, [], [8, 3, 13, "13 numbers"], "position", 8, {}, {"position": 8}],
)
def test_a_state_that_is_no_record_is_refused(state):
  with pytest.raises(ValueError, match="data state"):
    train(Numbered(13)).check(state)


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_batches_of_one(process_count):
  whole = take(train(Numbered(13)), 5)
  parts = [
    take(train(Numbered(13), process_index=p, process_count=process_count), 5)
    for p in range(process_count)
  ]
  joined = [
    {key: np.concatenate([b[key] for b in step]) for key in ("image", "label")}
    for step in zip(*parts, strict=True)
  ]
  assert_same(joined, whole)


def test_a_state_does_not_depend_on_the_process_count():
  whole = train(Numbered(13))
  part = train(Numbered(13), process_index=1, process_count=2)
  take(whole, 3)
  take(part, 3)
  assert part.state() == whole.state()


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("examples", [1, 3, 4, 5, 8, 9])
def test_evaluation_sees_every_example_once(examples, process_count):
  batch_size = 4
  parts = [
    list(
      eval_batches(
        Numbered(examples),
        batch_size=batch_size,
        resolution=SIZE,
        process_index=p,
        process_count=process_count,
      )
    )
    for p in range(process_count)
  ]
  steps = -(-examples // batch_size)
  assert [len(part) for part in parts] == [steps] * process_count
  batches = list(itertools.chain(*parts))
  labels = np.concatenate([b["label"] for b in batches])
  images = np.concatenate([b["image"] for b in batches])
  assert labels.dtype == np.int32 and images.dtype == np.uint8
  real = labels >= 0
  assert sorted(labels[real]) == list(range(examples))
  np.testing.assert_array_equal(images[real][:, 0, 0, 0], labels[real] + 1)
  assert (labels[~real] == -1).all()
  assert not images[~real].any()


def test_a_process_may_have_nothing_but_padding():
  batches = eval_batches(
    Numbered(5),
    batch_size=4,
    resolution=SIZE,
    process_index=3,
    process_count=4,
  )
  assert [b["label"].tolist() for b in batches] == [[3], [-1]]


def test_evaluation_can_be_run_again_and_knows_its_length():
  batches = eval_batches(Numbered(9), batch_size=4, resolution=SIZE)
  assert len(batches) == 3
  assert_same(list(batches), list(batches))


def test_a_batch_that_processes_cannot_share_is_refused():
  message = "batch size 6 does not divide by 4 processes"
  with pytest.raises(UsageError, match=message):
    train(Numbered(13), batch_size=6, process_count=4)
  with pytest.raises(UsageError, match=message):
    eval_batches(Numbered(13), batch_size=6, resolution=SIZE, process_count=4)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
  with pytest.raises(UsageError, match=f"got {seed}"):
    train(Numbered(13), seed=seed)
