"""Sizes of PNG, WebP and BMP files, read before anything is decoded."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from podscale.train.data.decoding.image_size import read_size
from podscale.train.data.decoding.picture import Picture
from podscale.train.data.source import BadExampleError


def saved(kind, size, mode="RGB", **options):
  file = io.BytesIO()
  Image.new(mode, size).save(file, kind, **options)
  return file.getvalue()


def exif():
  record = Image.Exif()
  record[0x0112] = 6
  return record


VARIANTS = [
  ("PNG", "RGB", {}),
  ("PNG", "1", {}),
  ("BMP", "RGB", {}),
  ("BMP", "P", {}),
  ("WEBP", "RGB", {}),
  ("WEBP", "RGB", {"lossless": True}),
  ("WEBP", "RGB", {"exif": exif()}),  # the extended header
  ("WEBP", "RGBA", {"lossless": True}),
]


@pytest.mark.parametrize("kind, mode, options", VARIANTS)
@pytest.mark.parametrize("size", [(1, 1), (300, 7), (7, 3000), (255, 256)])
def test_sizes_are_those_of_pillow(kind, mode, options, size):
  file = saved(kind, size, mode, **options)
  assert read_size(file) == size[::-1]
  assert Picture(file).decode().shape == (*size[::-1], 3)


def test_a_bmp_that_begins_with_its_first_row():
  file = bytearray(saved("BMP", (5, 4)))
  struct.pack_into("<i", file, 22, -4)
  assert read_size(bytes(file)) == (4, 5)
  assert Picture(bytes(file)).decode().shape == (4, 5, 3)


def test_a_bmp_of_os_2():
  rows = bytes([1, 2, 3, 4, 5, 6, 0, 0])  # two pixels, to a multiple of four
  header = struct.pack("<IHHHH", 12, 2, 1, 1, 24)
  file = struct.pack("<2sIHHI", b"BM", 26 + 8, 0, 0, 26) + header + rows
  assert Image.open(io.BytesIO(file)).size == (2, 1)
  assert read_size(file) == (1, 2)
  assert Picture(file).decode().tolist() == [[[3, 2, 1], [6, 5, 4]]]


@pytest.mark.parametrize("kind, mode, options", VARIANTS)
def test_a_bomb_is_refused_before_it_is_decoded(kind, mode, options):
  """A small file whose header has WebP's largest size, 16,383 each way."""
  file = bytearray(saved(kind, (40, 30), mode, **options))
  if kind == "PNG":
    struct.pack_into(">II", file, 16, 16383, 16383)
  elif kind == "BMP":
    struct.pack_into("<ii", file, 18, 16383, -16383)
  elif file[12:16] == b"VP8X":
    file[24:30] = struct.pack("<I", 16382)[:3] * 2
  elif file[12:16] == b"VP8L":
    struct.pack_into("<I", file, 21, 16382 | 16382 << 14)
  else:
    struct.pack_into("<HH", file, 26, 16383, 16383)
  with pytest.raises(BadExampleError, match="16383 x 16383 pixels, more than"):
    Picture(bytes(file))


@pytest.mark.parametrize("kind, mode, options", VARIANTS)
def test_any_header_is_read_or_refused(kind, mode, options):
  file = saved(kind, (40, 30), mode, **options)
  draw = np.random.default_rng(0)
  for end in range(min(40, len(file))):
    with pytest.raises(BadExampleError):
      Picture(file[:end])
  for _ in range(500):
    data = bytearray(file)
    for at in draw.integers(0, min(40, len(file)), 2):
      data[at] = draw.integers(256)
    try:
      height, width = read_size(bytes(data))
    except BadExampleError:
      continue
    assert height > 0 and width > 0
