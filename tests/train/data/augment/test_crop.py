"""Crops, shifts and mirrors of an image."""

import numpy as np
import pytest

from podscale.train.data.augment.crop import (
  NUMBERS,
  eval_image,
  random_crop,
  train_image,
)
from podscale.train.data.decoding.picture import Picture

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 256, (32, 32, 3), dtype=np.uint8)


def numbers(flip=0.9, y=0.5, x=0.5):
  return [flip, y, x] + [0.5] * (NUMBERS - 3)


def test_none_leaves_an_image_of_the_right_size_as_it_is():
  out = train_image(
    Picture(IMAGE), numbers(), resolution=32, crop="none", flip=True
  )
  np.testing.assert_array_equal(out, IMAGE)


@pytest.mark.parametrize("u", [0.0, 0.25, 0.499])
def test_flip_mirrors_left_to_right(u):
  out = train_image(
    Picture(IMAGE), numbers(u), resolution=32, crop="none", flip=True
  )
  np.testing.assert_array_equal(out, np.flip(IMAGE, axis=1))


def test_flip_can_be_left_out():
  out = train_image(
    Picture(IMAGE), numbers(0), resolution=32, crop="none", flip=False
  )
  np.testing.assert_array_equal(out, IMAGE)


@pytest.mark.parametrize("u_y", [0.0, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("u_x", [0.0, 0.5, 0.8, 0.999])
def test_shift_is_pad_and_cut(u_y, u_x):
  out = train_image(
    Picture(IMAGE),
    numbers(y=u_y, x=u_x),
    resolution=32,
    crop="shift",
    flip=False,
  )
  padded = np.pad(IMAGE, ((4, 4), (4, 4), (0, 0)))
  cuts = [
    (y, x)
    for y in range(9)
    for x in range(9)
    if (padded[y : y + 32, x : x + 32] == out).all()
  ]
  # Nine places, each with a ninth of the numbers; larger numbers shift the
  # image down and right, so cut further up and left.
  assert cuts == [(8 - int(9 * u_y), 8 - int(9 * u_x))]


def test_shift_of_a_tiny_image_does_nothing():
  image = IMAGE[:4, :4]
  out = train_image(
    Picture(image), numbers(), resolution=4, crop="shift", flip=False
  )
  np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize(
  "h, w", [(375, 500), (500, 375), (32, 32), (64, 20), (1, 1), (1, 50), (2, 3)]
)
def test_random_crops_keep_to_area_and_aspect(h, w):
  found = 0
  for draw in RNG.random((300, NUMBERS - 4)).tolist():
    box = random_crop(h, w, draw)
    if box is None:
      continue
    found += 1
    y, x, height, width = box
    assert 0 <= y <= y + height <= h
    assert 0 <= x <= x + width <= w
    assert 0.1 * h * w <= height * width < h * w
    # Width is aspect times height, rounded to a whole pixel.
    assert 3 / 4 * height - 0.5 <= width <= 4 / 3 * height + 0.5
  if min(h, w) >= 20:
    assert found > 290
  elif (h, w) == (1, 1):
    assert not found


@pytest.mark.parametrize("u_height", [0.1, 0.4, 0.8])
def test_the_place_of_a_crop_reaches_from_edge_to_edge(u_height):
  first = random_crop(40, 50, [0.5, u_height, 0.0, 0.0] * 10)
  last = random_crop(40, 50, [0.5, u_height, 0.9999, 0.9999] * 10)
  assert first[:2] == (0, 0)
  assert last == (40 - first[2], 50 - first[3], *first[2:])


def test_random_crops_have_many_sizes():
  boxes = [random_crop(40, 50, d) for d in RNG.random((2000, 40)).tolist()]
  _, _, height, width = np.array([b for b in boxes if b]).T
  area = height * width / (40 * 50)
  # Square crops have up to 80 % of the area, those of 4/3 up to 94 %.
  assert area.min() < 0.13 and area.max() > 0.85


def test_a_crop_that_is_hardly_ever_found_is_central():
  # 2x200: all 10 attempts give less than a tenth of the area.
  image = RNG.integers(0, 256, (2, 200, 3), dtype=np.uint8)
  assert random_crop(2, 200, [0.5] * 40) is None
  out = train_image(
    Picture(image), numbers(), resolution=4, crop="resized", flip=False
  )
  np.testing.assert_array_equal(out, eval_image(Picture(image), 4, 0))


def test_a_crop_is_resized_to_its_part_of_the_image():
  # Left half black, right half white: a crop at the far right is all white.
  image = np.zeros((80, 80, 3), np.uint8)
  image[:, 40:] = 255
  draw = [0.9, 0.9, 0.9, 0.9, 0.5, 0.2, 0.5, 0.999] + [0.5] * (NUMBERS - 8)
  y, x, height, width = random_crop(80, 80, draw[4:])
  assert x + width == 80 and x >= 40
  out = train_image(
    Picture(image), draw, resolution=16, crop="resized", flip=False
  )
  assert out.shape == (16, 16, 3) and (out == 255).all()


@pytest.mark.parametrize(
  "h, w, resolution, padding, y, x, size",
  [
    # size = resolution * short // (resolution + padding), offset rounded up
    (256, 256, 224, 32, 16, 16, 224),
    (300, 400, 224, 32, 19, 69, 262),
    (401, 300, 224, 32, 70, 19, 262),
    (32, 48, 32, 0, 0, 8, 32),
  ],
)
def test_evaluation_cuts_the_centre(h, w, resolution, padding, y, x, size):
  image = np.zeros((h, w, 3), np.uint8)
  image[y : y + size, x : x + size] = 255
  assert (eval_image(Picture(image), resolution, padding) == 255).all()
  image[y, x] = 0
  assert (eval_image(Picture(image), resolution, padding) != 255).any()


def bicubic(image, size):
  """Resize with Keys' cubic (a = -0.75), aligned centres, repeated borders."""
  a = -0.75

  def weight(t):
    t = abs(t)
    if t <= 1:
      return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

  n = len(image)
  matrix = np.zeros((size, n))
  for row in range(size):
    place = (row + 0.5) * n / size - 0.5
    for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
      matrix[row, min(max(tap, 0), n - 1)] += weight(place - tap)
  return np.einsum("yi,xj,ijc->yxc", matrix, matrix, image.astype(float))


@pytest.mark.parametrize("size", [24, 48])
def test_resizing_is_bicubic_and_clipped(size):
  want = bicubic(IMAGE, size)
  assert want.min() < -5 and want.max() > 260
  out = eval_image(Picture(IMAGE), size, 0)
  # OpenCV has weights of 11 bits for uint8: an error of 2**-12 in each of 16
  # products with up to 255, and half a unit of rounding.
  atol = 16 * 255 * 2.0**-12 + 0.5
  np.testing.assert_allclose(out, want.clip(0, 255), rtol=0, atol=atol)
