"""The host's part of training: JPEG files to batches of images."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..model import model_spec

# About what ImageNet's training images have: 500 x 375 pixels, 110 kB.
_WIDTH, _HEIGHT = 500, 375
_QUALITY = 92
_IMAGES = 64


def time_input(
  model: str, *, path: str | None, batch_size: int, runs: int
) -> list[dict[str, Any]]:
  """Times decoding, augmentation, and batches by all cores.

  Args:
    model: Member of the family, for the resolution.
    path: A folder with `train/CLASS/*.jpg`; None makes images like ImageNet's.
    batch_size: Images in a batch.
    runs: How often to time each.

  Returns:
    A row for each part: `images_per_s`, `threads`, and the seconds that each
    run took; a run is one pass over at most 64 images, or one batch.

  Raises:
    UsageError: the folder is not one of images.
  """
  # Who measures a TPU alone needs no JPEG decoder.
  from ..train.data.augment import NUMBERS, eval_image, train_image
  from ..train.data.batches import train_batches
  from ..train.data.folder import ImageFolder
  from ..train.data.prefetch import cores

  resolution = model_spec(model).resolution
  with _folder(path) as folder:
    source = ImageFolder(folder, "train")
    images = [source[i]["image"] for i in range(min(_IMAGES, len(source)))]
    numbers = np.random.default_rng(0).uniform(size=(len(images), NUMBERS))

    def decode() -> None:
      for i in range(len(images)):
        source[i]

    def augment() -> None:
      for image, drawn in zip(images, numbers, strict=True):
        train_image(
          *(image, drawn), resolution=resolution, crop="resized", flip=True
        )

    def evaluate() -> None:
      for image in images:
        eval_image(image, resolution, source.eval_padding)

    rows = [
      _row(part, len(images), 1, _times(run, runs))
      for part, run in (
        ("decode", decode),
        ("crop, resize, flip", augment),
        ("evaluation's crop and resize", evaluate),
      )
    ]
    batches = train_batches(
      source,
      batch_size=batch_size,
      resolution=resolution,
      seed=0,
      crop="resized",
      flip=True,
    )
    for _ in range(3):  # as many as were begun before anyone asked
      next(batches)
    seconds = _times(lambda: next(batches), runs)
    batches.close()
  return [*rows, _row("batches", batch_size, cores(), seconds)]


def _times(run: Callable[[], Any], runs: int) -> list[float]:
  seconds = []
  for _ in range(runs):
    begin = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - begin)
  return seconds


def _row(part: str, images: int, threads: int, seconds: list[float]):
  median = statistics.median(seconds)
  return {
    "part": part,
    "images_per_s": images / median,
    "threads": threads,
    "median_s": median,
    "min_s": min(seconds),
    "max_s": max(seconds),
    "samples_s": seconds,
  }


@contextmanager
def _folder(path: str | None) -> Iterator[str]:
  """The folder given, or one of images like ImageNet's."""
  if path is not None:
    yield path
    return
  with tempfile.TemporaryDirectory(prefix="podscale-images-") as made:
    folder = Path(made, "train", "noise")
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(_IMAGES):
      (folder / f"{i}.jpg").write_bytes(_jpeg(random))
    yield made


def _jpeg(random: np.random.Generator) -> bytes:
  """Smooth colours under grain."""
  import cv2
  import simplejpeg

  coarse = random.uniform(0, 255, (12, 16, 3)).astype(np.float32)
  smooth = cv2.resize(coarse, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
  grain = random.normal(0, 8, smooth.shape)
  image = np.clip(smooth + grain, 0, 255).astype(np.uint8)
  return simplejpeg.encode_jpeg(image, quality=_QUALITY)
