"""Sizes from headers, against Pillow."""

import functools
import io

import numpy as np
from hypothesis import HealthCheck, given, settings
from PIL import Image
from support.mutants import mutants

from podscale.train.data.decoding.jpeg_rows import find_height_field
from podscale.train.data.decoding.picture import Picture
from podscale.train.data.source import BadExampleError

_EXAMPLES = 30_000


@functools.cache
def originals():
  """Make small files of every format."""
  random = np.random.default_rng(0)
  pixels = random.integers(0, 256, (21, 30, 3), np.uint8)
  image = Image.fromarray(pixels)
  kinds = [
    (image, "jpeg", {}),
    (image, "jpeg", {"subsampling": 2}),
    (image, "jpeg", {"progressive": True}),
    (image, "jpeg", {"restart_marker_rows": 1}),
    (image, "jpeg", {"exif": _exif(6), "comment": b"a comment"}),
    (image.convert("L"), "jpeg", {}),
    (image.convert("CMYK"), "jpeg", {}),
    (image, "png", {}),
    (image, "bmp", {}),
    (image, "webp", {}),
    (image, "webp", {"lossless": True}),
  ]
  files = []
  for picture, kind, options in kinds:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    files.append(file.getvalue())
  return files


def _exif(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return exif.tobytes()


def _pillow_size(data):
  """Return height and width; None for a file that Pillow refuses, too."""
  try:
    return Image.open(io.BytesIO(data)).size[::-1]
  except Exception:  # Pillow raises all sorts
    return None


def test_a_header_gives_the_size_that_pillow_reads(tally):
  @settings(
    max_examples=_EXAMPLES,
    deadline=20000,
    suppress_health_check=list(HealthCheck),
  )
  @given(mutants(originals()))
  def run(data):
    picture = tally.read(lambda: Picture(data))
    find_height_field(data)
    reference = _pillow_size(data)
    if picture and reference:
      tally.compare((picture.height, picture.width), reference)

  run()


def test_a_file_is_decoded_or_refused(tally):
  @settings(
    max_examples=_EXAMPLES // 3,
    deadline=200000,
    suppress_health_check=list(HealthCheck),
  )
  @given(mutants(originals()))
  def run(data):
    try:
      picture = Picture(data)
    except BadExampleError:
      return
    if picture.height * picture.width > 10**6:
      return
    pixels = tally.read(picture.decode)
    if pixels is not None:
      tally.compare(pixels.shape, (picture.height, picture.width, 3))

  run()
