"""The host's part of training: JPEG files to batches of images."""

import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...model import model_spec

if TYPE_CHECKING:
  from ...train.data import Source

# What ImageNet's training images have, about: 500 x 375 pixels, 100 kB.
_WIDTH, _HEIGHT = 500, 375
_IMAGES = 64


class Stage(NamedTuple):
  """What is timed.

  Attributes:
    name: What it does.
    images: In a run.
    threads: That share them.
    run: Does it once.
  """

  name: str
  images: int
  threads: int
  run: Callable[[], Any]


def time_input(
  model: str, *, path: str | None, batch_size: int, runs: int
) -> list[dict[str, Any]]:
  """Time each stage from a file to a batch.

  The stages take turns, so that what else the machine does falls on all. Files
  of converted data are decoded to the crop's end, others whole; both are timed
  whatever the data set is, AutoAugment and batches as the data set allows.

  Args:
    model: Member of the family, for the resolution.
    path: A data set that `open_images` reads; None makes files like ImageNet's.
    batch_size: Images in a batch.
    runs: How often to time each.

  Returns:
    A row for each stage: `images_per_s`, `threads`, `of_decode`, its rate by
    that of decoding the same files whole on one thread (simplejpeg alone), the
    median of what each turn gives, and the seconds that each run took; a run is
    one pass over at most 64 files, or one batch.

  Raises:
    UsageError: the data set cannot be read.
  """
  # Who measures a TPU alone needs no JPEG decoder.
  from ...train.data.images import open_images
  from ...train.data.loading.prefetch import cores, one_thread_per_image

  one_thread_per_image()
  resolution = model_spec(model).resolution
  with _folder(path) as folder:
    source = open_images(folder, "train")
    rows = _rows(list(_image_stages(source, resolution, cores())), runs)
    # One by one: a stage of batches has threads that work ahead.
    for stage in _batch_stages(source, resolution, batch_size, cores()):
      rows += _rows([stage], runs)
  return [row | {"of_decode": _rate_by_that_of(rows[0], row)} for row in rows]


def _image_stages(
  source: "Source", resolution: int, cores: int
) -> Iterator[Stage]:
  import simplejpeg

  from ...train.data.augment.crop import NUMBERS, eval_image, train_image
  from ...train.data.augment.policies import AutoAugment, apply_ops
  from ...train.data.decoding.jpeg import is_jpeg
  from ...train.data.decoding.picture import Picture
  from ...train.data.source import Decoding

  policy = AutoAugment()
  count = min(_IMAGES, len(source))
  files: list[Any] = [source[i]["image"] for i in range(count)]
  width = NUMBERS + policy.numbers
  drawn = np.random.default_rng(0).uniform(size=(count, width)).tolist()

  def whole(i: int) -> None:
    if is_jpeg(files[i]):
      simplejpeg.decode_jpeg(files[i])
    else:
      Picture(files[i]).decode()

  def crop(decoding: Decoding, i: int) -> np.ndarray:
    return train_image(
      Picture(files[i], decoding),
      drawn[i],
      resolution=resolution,
      crop="resized",
      flip=True,
    )

  def augment(i: int) -> None:
    pixels = crop(source.decoding, i)
    apply_ops(pixels, policy.draw(drawn[i][NUMBERS:]))

  def evaluate(i: int) -> None:
    picture = Picture(files[i], source.decoding)
    eval_image(picture, resolution, source.eval_padding)

  for name, work in (
    ("whole files decoded", whole),
    ("read", source.__getitem__),
    (
      "decode, crop, resize, flip",
      functools.partial(crop, Decoding(verified=False)),
    ),
    (
      "decode to the crop's end, crop, resize, flip",
      functools.partial(crop, Decoding(verified=True)),
    ),
    ("decode, crop, resize, flip, AutoAugment", augment),
    ("evaluation's decode, crop, resize", evaluate),
  ):
    for threads in sorted({1, cores}):
      run = functools.partial(_on_threads, threads, work, count)
      yield Stage(name, count, threads, run)


def _batch_stages(
  source: "Source", resolution: int, batch_size: int, cores: int
) -> Iterator[Stage]:
  from ...train.data.augment.policies import AutoAugment
  from ...train.data.loading.batches import train_batches

  for name, policy in (
    ("batches", None),
    ("batches, AutoAugment", AutoAugment()),
  ):
    with contextlib.closing(
      train_batches(
        source,
        batch_size=batch_size,
        resolution=resolution,
        seed=0,
        crop="resized",
        flip=True,
        policy=policy,
      )
    ) as batches:
      for _ in range(3):  # as many as were begun before anyone asked
        next(batches)
      yield Stage(name, batch_size, cores, functools.partial(next, batches))


def _on_threads(threads: int, work: Callable[[int], Any], count: int) -> None:
  if threads == 1:
    for i in range(count):
      work(i)
    return
  with ThreadPoolExecutor(threads) as pool:
    list(pool.map(work, range(count)))


def _rows(stages: Sequence[Stage], runs: int) -> list[dict[str, Any]]:
  seconds: list[list[float]] = [[] for _ in stages]
  for _ in range(runs):
    for stage, taken in zip(stages, seconds, strict=True):
      begin = time.perf_counter()
      stage.run()
      taken.append(time.perf_counter() - begin)
  return [
    {
      "stage": stage.name,
      "images_per_s": stage.images / statistics.median(taken),
      "threads": stage.threads,
      "images": stage.images,
      "median_s": statistics.median(taken),
      "min_s": min(taken),
      "max_s": max(taken),
      "samples_s": taken,
    }
    for stage, taken in zip(stages, seconds, strict=True)
  ]


def _rate_by_that_of(other: dict[str, Any], row: dict[str, Any]) -> float:
  """By turns: within one, the machine was as fast for both."""
  return statistics.median(
    (row["images"] / mine) / (other["images"] / its)
    for mine, its in zip(row["samples_s"], other["samples_s"], strict=True)
  )


@contextlib.contextmanager
def _folder(path: str | None) -> Iterator[str]:
  """The folder given, or one of images like ImageNet's."""
  if path is not None:
    yield path
    return
  from ...train.data.tools.synthesize import synthesize

  with tempfile.TemporaryDirectory(prefix="podscale-images-") as made:
    synthesize(
      Path(made),
      "tfrecord",
      examples={"train": _IMAGES},
      width=_WIDTH,
      height=_HEIGHT,
    )
    yield made
