"""Batches for training and evaluation: one process's share of each."""

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

  `train_batches` makes one. The state holds the number of examples consumed by
  all processes, and identifies the run by its seed and the data's size and
  listing.
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
    """Return the state at the next batch: JSON, equal on all processes."""
    return {"position": self._position, **self._identity}

  def check(self, state: Any) -> None:
    """Check that `state` could be a state of this run.

    Raises:
      ValueError: It could not; its seed, examples and listing are not compared.
    """
    mine = self.state()
    if not isinstance(state, dict) or state.keys() != mine.keys():
      raise ValueError(
        f"the data state has other keys than {', '.join(mine)}: {state!r}"
      )
    for name, value in mine.items():
      if type(state[name]) is not type(value):  # a bool is no int here
        raise ValueError(
          f"the data state has {name} {state[name]!r}, expected a "
          f"{type(value).__name__}"
        )
    position = state["position"]
    if not 0 <= position < 2**63 or position % self._batch_size:
      raise ValueError(
        f"the data state has position {position}, not a number of whole "
        f"batches of {self._batch_size}"
      )

  def restore(self, state: dict[str, Any]) -> None:
    """Continue as the iterator that returned `state` would have continued.

    Raises:
      ValueError: `state` is no state, see `check`.
      UsageError: `state` has another seed or other examples.
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
    """End the threads and the iteration."""
    self._batches.close()  # type: ignore[attr-defined]


class EvalBatches:
  """The batches of one pass over a split, from `eval_batches`."""

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
    """Read the label and the image header of every example.

    No pixels are decoded, so this takes as long as reading the files.

    Raises:
      UsageError: A label is out of range, or too many examples are bad.
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
  """Make this process's share of an endless run of training batches.

  Each epoch shuffles all examples anew, and each example comes once in each
  epoch. A batch may cross the end of an epoch, so no example is dropped. The
  global batch at a step, augmentation included, depends on (seed, step) alone;
  process p has its p-th contiguous part.

  Args:
    source: Source of the examples.
    batch_size: Images in a global batch.
    resolution: Height and width of the images, in pixels.
    seed: Seed of order and augmentation, in [0, 2**64).
    crop: Training crop, "resized", "shift" or "none"; see `train_image`.
    flip: True to mirror half of the images left to right.
    policy: Operations after crop and mirror; None applies none.
    augment_later: True to leave the operations to the device. The batches then
      hold them as "op_ids" and "op_values", see `device_augment.encode_ops`.
    order: Order of the examples; None shuffles each epoch.
    skips: Collects bad examples, each replaced by the next good one in the
      source's order. None raises at the first.
    process_index: Index of this process, in [0, process_count).
    process_count: Number of processes that share the batch.

  Returns:
    Batches {"image": uint8 [n, resolution, resolution, 3], "label": int32 [n]}
    with n = batch_size / process_count, not normalised.

  Raises:
    UsageError: batch_size does not divide by process_count, or the seed is out
      of range; from the iterator: too many examples are bad.

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
    raise UsageError(f"the seed must be in [0, 2**64), got {seed}")

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
      # Late, because importing JAX takes a second.
      from ..augment.device_augment import encode_ops

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
  """Make this process's share of one pass over a split, in order.

  Over all processes each example comes exactly once. Every process has the same
  number of batches. Beyond the last example a batch is padded with black images
  of label -1; a whole batch may be padding.

  Args:
    source: Source of the examples.
    batch_size: Images in a global batch.
    resolution: Height and width of the images, in pixels.
    skips: Collects bad examples, each replaced by padding. None raises at the
      first.
    process_index: Index of this process, in [0, process_count).
    process_count: Number of processes that share the batch.

  Returns:
    An iterable with a length; its batches have the form of `train_batches`.

  Raises:
    UsageError: batch_size does not divide by process_count; from the iterator:
      too many examples are bad.

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
