"""Orientations by EXIF, and EXIF without one."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from podscale.train.data.augment.crop import eval_image
from podscale.train.data.decoding.orientation import (
  ORIENTATIONS,
  jpeg_orientation,
)
from podscale.train.data.decoding.picture import Picture
from podscale.train.data.source import Decoding
from podscale.train.data.tools.synthesize import synthetic_jpeg

TURNED = Decoding(exif_rotation=True)
PHOTO = Image.open(io.BytesIO(synthetic_jpeg(0, 1, width=200, height=120)))


def exif(orientation):
  record = Image.Exif()
  record[0x0112] = orientation
  return record


def saved(kind, orientation, image=PHOTO):
  file = io.BytesIO()
  options = {"lossless": True} if kind == "WEBP" else {}
  image.save(file, kind, exif=exif(orientation), **options)
  return file.getvalue()


def turned_by_pillow(file):
  image = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
  return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_are_as_pillow_turns_them(kind, orientation):
  file = saved(kind, orientation)
  picture = Picture(file, TURNED)
  want = turned_by_pillow(file)
  assert (picture.height, picture.width) == want.shape[:2]
  np.testing.assert_array_equal(picture.decode(), want)
  # Without the option they are left alone.
  left = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
  np.testing.assert_array_equal(Picture(file).decode(), left)
  assert Picture(file).height == 120


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_of_the_turned_image(orientation, verified):
  file = saved("JPEG", orientation)
  picture = Picture(file, Decoding(exif_rotation=True, verified=verified))
  whole = turned_by_pillow(file)
  out = np.empty((40, 40, 3), np.uint8)
  for y, x in ((0, 0), (13, 7), (80, 80), (whole.shape[0] - 40, 5)):
    picture.resize((y, x, 40, 40), out)
    np.testing.assert_array_equal(out, whole[y : y + 40, x : x + 40])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_resized_boxes_are_of_the_turned_image(orientation):
  file = saved("JPEG", orientation)
  out = np.empty((64, 64, 3), np.uint8)
  box = (11, 5, 70, 90)
  Picture(file, TURNED).resize(box, out)
  want = np.empty_like(out)
  Picture(turned_by_pillow(file)).resize(box, want)
  # Turned before or after, the weights of OpenCV round the other way.
  assert np.abs(out.astype(int) - want).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_is_turned_as_well(orientation):
  smooth = PHOTO.resize((403, 245), Image.Resampling.BICUBIC)
  file = saved("JPEG", orientation, smooth)
  got = eval_image(Picture(file, TURNED), 32, 8)
  want = eval_image(Picture(turned_by_pillow(file)), 32, 8)
  # Reducing averages what the other aliases: about a level here.
  assert np.abs(got.astype(int) - want).mean() < 12
  other = eval_image(Picture(turned_by_pillow(file)[::-1]), 32, 8)
  assert np.abs(got.astype(int) - other).mean() > 20


def jpeg_with(tiff, start=b"Exif\0\0"):
  body = start + tiff
  return (
    b"\xff\xd8\xff\xe1"
    + struct.pack(">H", len(body) + 2)
    + body
    + saved("JPEG", 1)[2:]
  )


def directory(order, *entries, count=None):
  magic = b"II*\0" if order == "<" else b"MM\0*"
  head = magic + struct.pack(order + "I", 8)
  head += struct.pack(order + "H", len(entries) if count is None else count)
  return head + b"".join(
    struct.pack(order + "HHIHH", *entry) for entry in entries
  )


@pytest.mark.parametrize("order", "<>")
def test_both_byte_orders_and_any_place_in_the_directory(order):
  make = (0x010F, 2, 4, 0, 0)
  tiff = directory(order, make, (0x0112, 3, 1, 6, 0), make)
  assert jpeg_orientation(jpeg_with(tiff)) == ORIENTATIONS[6]


@pytest.mark.parametrize(
  "tiff",
  [
    b"",
    b"II*\0",
    b"XX*\0" + bytes(20),
    b"II*\0" + struct.pack("<I", 2**32 - 1),
    b"II*\0" + struct.pack("<I", 8),
    directory("<", count=65535),
    directory("<", (0x0112, 3, 1, 9, 0)),
    directory("<", (0x0112, 3, 1, 0, 0)),
    directory(">", (0x0112, 2, 1, 6, 0)),  # a text
    directory("<", (0x0112, 3, 1, 6, 0))[:-1],
  ],
)
def test_exif_without_an_orientation_turns_nothing(tiff):
  file = jpeg_with(tiff)
  assert jpeg_orientation(file) == ORIENTATIONS[1]
  assert Picture(file, TURNED).height == 120


def test_damaged_exif_never_raises():
  draw = np.random.default_rng(0)
  file = saved("JPEG", 6)
  end = file.index(b"\xff\xdb")
  for _ in range(2000):
    data = bytearray(file[:end])
    for at in draw.integers(2, end, 3):
      data[at] = draw.integers(256)
    assert jpeg_orientation(bytes(data) + file[end:]) in ORIENTATIONS.values()
