"""The batch protocol: one process's share of the global batches of a run."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...errors import UsageError
from ..augment.crop import NUMBERS, Crop, eval_image, train_image
from ..augment.policies import Policy, apply_ops
from ..decoding.picture import Picture
from ..source import BadExampleError, Source
from .bad_examples import Skips
from .order import Order, Shuffled
from .prefetch import Batch, cores, prefetch
from .randomness import uniform_numbers

OP_IDS = "op_ids"
"""Batch key of the operations to augment with on the device."""
OP_VALUES = "op_values"
"""Batch key of the operations' values."""


class TrainBatches:
  """An endless iterator of training batches that can be saved and resumed.

  Made by `train_batches`. Its state is the number of examples handed out, over
  all processes, with the seed and the data's size and listing, to know the run
  by.
  """

  def __init__(
    self,
    start: Callable[[int], Iterator[Batch]],
    batch_size: int,
    identity: dict[str, int | str],
  ):
    self._start = start
    self._batch_size = batch_size
    self._identity = identity
    self._position = 0
    self._batches = start(0)

  def __iter__(self) -> "TrainBatches":
    return self

  def __next__(self) -> Batch:
    batch = next(self._batches)
    self._position += self._batch_size
    return batch

  def state(self) -> dict[str, int | str]:
    """Where the next batch begins; fit for JSON and equal on all processes."""
    return {"position": self._position, **self._identity}

  def check(self, state: Any) -> None:
    """Raise ValueError unless `state` could be one of this run's batches."""
    mine = self.state()
    if not isinstance(state, dict) or state.keys() != mine.keys():
      raise ValueError(f"the data state is not of {', '.join(mine)}: {state!r}")
    for name, value in mine.items():
      if type(state[name]) is not type(value):  # a bool is no int
        raise ValueError(f"the data state has {name} {state[name]!r}")
    position = state["position"]
    if not 0 <= position < 2**63 or position % self._batch_size:
      raise ValueError(
        f"the data state has position {position}, not a number of whole "
        f"batches of {self._batch_size}"
      )

  def restore(self, state: dict[str, Any]) -> None:
    """Go on as the iterator whose `state` this is would have gone on.

    Raises:
      ValueError: it is no state, see `check`.
      UsageError: the state is of another seed or of other examples.
    """
    self.check(state)
    for name, mine in self._identity.items():
      if state[name] != mine:
        raise UsageError(
          f"the saved data state has {name} {state[name]}, this run has {mine}"
        )
    self.close()
    self._position = state["position"]
    self._batches = self._start(self._position)

  def close(self) -> None:
    """End the threads; the iterator is then at its end."""
    self._batches.close()  # type: ignore[attr-defined]


class EvalBatches:
  """The batches of one pass over a split; made by `eval_batches`."""

  def __init__(
    self,
    start: Callable[[], Iterator[Batch]],
    steps: int,
    check: Callable[[], None],
  ):
    self._start = start
    self._steps = steps
    self._check = check

  def __len__(self) -> int:
    return self._steps

  def __iter__(self) -> Iterator[Batch]:
    return self._start()

  def check(self) -> None:
    """Read the label and the image's header of each example of the batches.

    No pixels are decoded, so this takes as long as reading the files.

    Raises:
      UsageError: a label is out of range, or too many examples are bad.
    """
    self._check()


def train_batches(
  source: Source,
  *,
  batch_size: int,
  resolution: int,
  seed: int,
  crop: Crop,
  flip: bool,
  policy: Policy | None = None,
  augment_later: bool = False,
  order: Order | None = None,
  skips: Skips | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> TrainBatches:
  """This process's share of an endless run of shuffled training batches.

  Each epoch has a new order of all the examples; each example comes once in
  each epoch. A batch may reach over the end of an epoch, so none is dropped.
  The global batch at a step, augmentation included, depends on (seed, step)
  alone; process p has its p-th contiguous part.

  Args:
    source: Where the examples come from.
    batch_size: Images in a global batch.
    resolution: Height and width of the images, in pixels.
    seed: Of order and augmentation, in [0, 2**64).
    crop: "resized", "shift" or "none"; see `augment.train_image`.
    flip: Mirror half of the images left to right.
    policy: What is done to the images then.
    augment_later: Do not do it, but let the batches say what is to be done:
      "op_ids" and "op_values", as `device_augment.encode_ops` gives them.
    order: Which example comes when; None shuffles each epoch anew.
    skips: Counts examples that cannot be used; instead of one the next that can
      is taken, in the source's order. None stops at the first.
    process_index: Of this process, in [0, process_count).
    process_count: Number of processes that share the batch.

  Returns:
    Batches {"image": uint8 [n, resolution, resolution, 3], "label": int32 [n]}
    with n = batch_size / process_count, not normalised.

  Raises:
    UsageError: batch_size does not divide by process_count, or the seed is out
      of range; from the iterator, that there are too many bad examples.

  >>> from podscale.train.data import Synthetic
  >>> batches = train_batches(
  ...   Synthetic(100, resolution=8), batch_size=32, resolution=8, seed=0,
  ...   crop="shift", flip=True,
  ... )
  >>> batch = next(batches)
  >>> batch["image"].shape, str(batch["label"].dtype)
  ((32, 8, 8, 3), 'int32')
  >>> batches.state()  # doctest: +ELLIPSIS
  {'position': 32, 'seed': 0, 'examples': 100, 'listing': '...'}
  >>> batches.close()
  """
  share = _share(batch_size, process_index, process_count)
  examples = len(source)
  if not 0 <= seed < 2**64:
    raise UsageError(f"seed must be in [0, 2**64), got {seed}")

  order = Shuffled(examples, seed) if order is None else order
  skips = Skips(0) if skips is None else skips
  width = NUMBERS + (policy.numbers if policy else 0)

  def pixels_and_label(
    index: int, numbers: list[float]
  ) -> tuple[np.ndarray, int]:
    for i in range(index, index + examples):
      try:
        example = source[i % examples]
        pixels = train_image(
          Picture(example["image"], source.decoding),
          numbers,
          resolution=resolution,
          crop=crop,
          flip=flip,
          eval_padding=source.eval_padding,
        )
        return pixels, example["label"]
      except BadExampleError as error:
        skips.add(source.where(i % examples), error)
    raise UsageError(f"none of the {examples} training images can be used")

  def fill(part: Batch, position: int) -> None:
    count = len(part["label"])
    numbers = uniform_numbers(seed, position, count, width).tolist()
    for row in range(count):
      index = order[position + row]
      pixels, part["label"][row] = pixels_and_label(index, numbers[row])
      if policy and not augment_later:
        pixels = apply_ops(pixels, policy.draw(numbers[row][NUMBERS:]))
      part["image"][row] = pixels
    if policy and augment_later:
      from ..augment.device_augment import (
        encode_ops,
      )  # late: JAX takes a second

      ops = [policy.draw(row[NUMBERS:]) for row in numbers]
      part[OP_IDS][:], part[OP_VALUES][:] = encode_ops(ops, policy.layers)

  def new_batch() -> Batch:
    batch = _new_batch(share, resolution)
    if policy and augment_later:
      batch[OP_IDS] = np.zeros((share, policy.layers), np.int32)
      batch[OP_VALUES] = np.zeros((share, policy.layers, 3), np.float32)
    return batch

  def start(position: int) -> Iterator[Batch]:
    positions = itertools.count(position + process_index * share, batch_size)
    return prefetch(fill, positions, new_batch)

  identity: dict[str, int | str]
  identity = {"seed": seed, "examples": examples, "listing": source.listing}
  return TrainBatches(start, batch_size, identity)


def eval_batches(
  source: Source,
  *,
  batch_size: int,
  resolution: int,
  skips: Skips | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> EvalBatches:
  """This process's share of one pass over a split, in order.

  Over all processes each example comes exactly once. Every process has the same
  number of batches; what is beyond the last example is a black image with label
  -1, and a batch may hold nothing else.

  Args:
    source: Where the examples come from.
    batch_size: Images in a global batch.
    resolution: Height and width of the images, in pixels.
    skips: Counts examples that cannot be used; such a one becomes padding. None
      stops at the first.
    process_index: Of this process, in [0, process_count).
    process_count: Number of processes that share the batch.

  Returns:
    An iterable with a length, of batches as those of `train_batches`.

  Raises:
    UsageError: batch_size does not divide by process_count; from the iterator,
      that there are too many bad examples.

  >>> from podscale.train.data import Synthetic
  >>> batches = eval_batches(
  ...   Synthetic(5, resolution=8), batch_size=4, resolution=8
  ... )
  >>> [batch["label"].tolist() for batch in batches]
  [[0, 1, 2, 3], [4, -1, -1, -1]]
  """
  share = _share(batch_size, process_index, process_count)
  examples = len(source)
  skips = Skips(0) if skips is None else skips

  def fill(part: Batch, position: int) -> None:
    for row in range(min(len(part["label"]), examples - position)):
      try:
        example = source[position + row]
        part["image"][row] = eval_image(
          Picture(example["image"], source.decoding),
          resolution,
          source.eval_padding,
        )
        part["label"][row] = example["label"]
      except BadExampleError as error:
        skips.add(source.where(position + row), error)

  def start() -> Iterator[Batch]:
    return prefetch(fill, positions, lambda: _new_batch(share, resolution))

  def check_example(index: int) -> None:
    try:
      Picture(source[index]["image"])
    except BadExampleError as error:
      skips.add(source.where(index), error)

  def check() -> None:
    of_this_process = (
      index
      for position in positions
      for index in range(position, min(position + share, examples))
    )
    pool = ThreadPoolExecutor(cores(), thread_name_prefix="podscale-check")
    try:
      for _ in pool.map(check_example, of_this_process):
        pass
    finally:
      pool.shutdown(cancel_futures=True)

  steps = -(-examples // batch_size)
  positions = range(process_index * share, steps * batch_size, batch_size)
  return EvalBatches(start, steps, check)


def _new_batch(size: int, resolution: int) -> Batch:
  return {
    "image": np.zeros((size, resolution, resolution, 3), np.uint8),
    "label": np.full(size, -1, np.int32),
  }


def _share(batch_size: int, process_index: int, process_count: int) -> int:
  if not 0 <= process_index < process_count:
    raise ValueError(f"process {process_index} of {process_count}")
  if batch_size % process_count:
    raise UsageError(
      f"batch size {batch_size} does not divide by {process_count} processes"
    )
  return batch_size // process_count
