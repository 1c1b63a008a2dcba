"""Rates of the input pipeline, from JPEG to batch, on this host."""

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

# Typical of ImageNet's training images: 500 x 375 pixels, 100 kB.
_WIDTH, _HEIGHT = 500, 375
_IMAGES = 64


class Stage(NamedTuple):
  """A part of the pipeline that is timed.

  Attributes:
    name: Name in the benchmark's table.
    images: Number of images in a run.
    threads: Number of threads that share the images.
    run: Function that does one run.
  """

  name: str
  images: int
  threads: int
  run: Callable[[], Any]


def time_input(
  model: str, *, path: str | None, batch_size: int, runs: int
) -> list[dict[str, Any]]:
  """Time each stage from a file to a batch.

  The stages run in turns, so that other load on the machine slows all of them.
  The decoding stages are timed both ways, whole and to the end of the crop,
  whatever the data set is. AutoAugment and batches decode as the data set
  allows: converted data to the end of the crop, other files whole.

  Args:
    model: Member of the family, whose resolution is taken.
    path: Data set that `open_images` reads; None makes files like ImageNet's.
    batch_size: Images in a batch.
    runs: Number of timed runs of each stage.

  Returns:
    A row for each stage: `images_per_s`; `threads`; `of_decode`, its rate
    divided by the rate of decoding the same files whole on one thread
    (simplejpeg alone), as the median over the turns; and the seconds of each
    run. A run is one pass over at most 64 files, or one batch.

  Raises:
    UsageError: The data set cannot be read.
  """
  # Imported here, as other benchmarks need no JPEG decoder.
  from ...train.data.images import open_images
  from ...train.data.loading.prefetch import cores, one_thread_per_image

  one_thread_per_image()
  resolution = model_spec(model).resolution
  with _folder(path) as folder:
    source = open_images(folder, "train")
    rows = _rows(list(_image_stages(source, resolution, cores())), runs)
    # One stage at a time: a stage of batches has threads that work ahead.
    for stage in _batch_stages(source, resolution, batch_size, cores()):
      rows += _rows([stage], runs)
  return [row | {"of_decode": _relative_rate(row, rows[0])} for row in rows]


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
      for _ in range(3):  # batches that began before the first request
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


def _relative_rate(row: dict[str, Any], other: dict[str, Any]) -> float:
  """Return the median over turns; within a turn the machine's load is equal."""
  return statistics.median(
    (row["images"] / seconds) / (other["images"] / other_seconds)
    for seconds, other_seconds in zip(
      row["samples_s"], other["samples_s"], strict=True
    )
  )


@contextlib.contextmanager
def _folder(path: str | None) -> Iterator[str]:
  """Yield the given folder, or a temporary one of images like ImageNet's."""
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
