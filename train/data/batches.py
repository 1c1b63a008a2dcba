"""The batch protocol: one process's share of the global batches of a run."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import UsageError
from .augment import NUMBERS, Crop, eval_image, train_image
from .prefetch import Batch, prefetch
from .randomness import shuffled_index, uniform_numbers
from .source import Source


class TrainBatches:
  """An endless iterator of training batches that can be saved and resumed.

  Made by `train_batches`. Its state is the number of examples handed out, over
  all processes, with the seed and the data's size to know the run by.
  """

  def __init__(
    self,
    start: Callable[[int], Iterator[Batch]],
    batch_size: int,
    identity: dict[str, int],
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

  def state(self) -> dict[str, int]:
    """Where the next batch begins; fit for JSON and equal on all processes."""
    return {"position": self._position, **self._identity}

  def restore(self, state: dict[str, Any]) -> None:
    """Go on as the iterator whose `state` this is would have gone on.

    Raises:
      UsageError: the state is of another seed or number of examples.
    """
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

  def __init__(self, start: Callable[[], Iterator[Batch]], steps: int):
    self._start = start
    self._steps = steps

  def __len__(self) -> int:
    return self._steps

  def __iter__(self) -> Iterator[Batch]:
    return self._start()


def train_batches(
  source: Source,
  *,
  batch_size: int,
  resolution: int,
  seed: int,
  crop: Crop,
  flip: bool,
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
    process_index: Of this process, in [0, process_count).
    process_count: Number of processes that share the batch.

  Returns:
    Batches {"image": uint8 [n, resolution, resolution, 3], "label": int32 [n]}
    with n = batch_size / process_count, not normalised.

  Raises:
    UsageError: batch_size does not divide by process_count, or the seed is out
      of range.

  >>> from podscale.train.data import Synthetic
  >>> batches = train_batches(
  ...   Synthetic(100, resolution=8), batch_size=32, resolution=8, seed=0,
  ...   crop="shift", flip=True,
  ... )
  >>> batch = next(batches)
  >>> batch["image"].shape, str(batch["label"].dtype)
  ((32, 8, 8, 3), 'int32')
  >>> batches.state()
  {'position': 32, 'seed': 0, 'examples': 100}
  >>> batches.close()
  """
  share = _share(batch_size, process_index, process_count)
  examples = len(source)
  if not 0 <= seed < 2**64:
    raise UsageError(f"seed must be in [0, 2**64), got {seed}")

  def fill(images: np.ndarray, labels: np.ndarray, position: int) -> None:
    numbers = uniform_numbers(seed, position, len(labels), NUMBERS).tolist()
    for row in range(len(labels)):
      example = source[shuffled_index(examples, seed, position + row)]
      images[row] = train_image(
        example["image"],
        numbers[row],
        resolution=resolution,
        crop=crop,
        flip=flip,
        eval_padding=source.eval_padding,
      )
      labels[row] = example["label"]

  def start(position: int) -> Iterator[Batch]:
    positions = itertools.count(position + process_index * share, batch_size)
    return prefetch(fill, positions, batch_size=share, resolution=resolution)

  return TrainBatches(start, batch_size, {"seed": seed, "examples": examples})


def eval_batches(
  source: Source,
  *,
  batch_size: int,
  resolution: int,
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
    process_index: Of this process, in [0, process_count).
    process_count: Number of processes that share the batch.

  Returns:
    An iterable with a length, of batches as those of `train_batches`.

  Raises:
    UsageError: batch_size does not divide by process_count.

  >>> from podscale.train.data import Synthetic
  >>> batches = eval_batches(
  ...   Synthetic(5, resolution=8), batch_size=4, resolution=8
  ... )
  >>> [batch["label"].tolist() for batch in batches]
  [[0, 1, 2, 3], [4, -1, -1, -1]]
  """
  share = _share(batch_size, process_index, process_count)
  examples = len(source)

  def fill(images: np.ndarray, labels: np.ndarray, position: int) -> None:
    for row in range(min(len(labels), examples - position)):
      example = source[position + row]
      images[row] = eval_image(
        example["image"], resolution, source.eval_padding
      )
      labels[row] = example["label"]

  def start() -> Iterator[Batch]:
    positions = range(process_index * share, steps * batch_size, batch_size)
    return prefetch(fill, positions, batch_size=share, resolution=resolution)

  steps = -(-examples // batch_size)
  return EvalBatches(start, steps)


def _share(batch_size: int, process_index: int, process_count: int) -> int:
  if not 0 <= process_index < process_count:
    raise ValueError(f"process {process_index} of {process_count}")
  if batch_size % process_count:
    raise UsageError(
      f"batch size {batch_size} does not divide by {process_count} processes"
    )
  return batch_size // process_count
