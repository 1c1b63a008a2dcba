"""Each operation against TensorFlow's results, its formula and hand results."""

import fractions
import math

import numpy as np
import pytest
from support.tensorflow_record import (
  CASES,
  LEVELS,
  PHOTOGRAPHS,
  RECORD,
  crc32,
  op_of,
  photograph,
)

from podscale.train.data.augment.image_ops import OPS, Op, apply_op

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (37, 41, 3), dtype=np.uint8)
# Few levels, and none of the extreme ones.
NARROW = RNG.integers(90, 140, (37, 41, 3), dtype=np.uint8)
LEVELS_OF_GREY = np.arange(256)

STRENGTHS = {
  "AutoContrast": [0],
  "Equalize": [0],
  "Invert": [0],
  "Rotate": [-27.0, 5.5],
  "Posterize": [0, 2, 8, 12],
  "Solarize": [0, 100, 256, 768],
  "Color": [0.0, 0.28, 1.9],
  "Contrast": [0.0, 0.28, 1.9],
  "Brightness": [0.0, 0.28, 1.9],
  "Sharpness": [0.0, 0.28, 1.9],
  "ShearX": [-0.27, 0.12],
  "ShearY": [-0.27, 0.12],
  "TranslateX": [-10.0, 500.0],
  "TranslateY": [-10.0, 500.0],
  "Cutout": [0, 9],
  "SolarizeAdd": [0, 110],
}


def run(name, value=0.0, image=IMAGE, y=0.0, x=0.0):
  return apply_op(image, Op(name, value, y, x))


def row(*levels):
  """Make an image of one row of grey pixels."""
  return np.repeat(np.array(levels, np.uint8)[None, :, None], 3, axis=-1)


def grey_levels(image):
  assert (image == image[..., :1]).all()
  return image[0, :, 0].tolist()


def blend(a, b, factor):
  """Compute in float32, and round each step as TensorFlow does."""
  a, b = a.astype(np.float32), b.astype(np.float32)
  return (a + np.float32(factor) * (b - a)).clip(0, 255).astype(np.uint8)


def test_there_are_sixteen_in_the_order_of_tensorflow():
  assert list(OPS) == list(STRENGTHS)


def test_the_record_has_every_operation_both_signs_and_reaches():
  signs = {"Rotate": 2, "ShearX": 2, "ShearY": 2}
  signs |= {"TranslateX": 4, "TranslateY": 4}
  names = [case.split()[0] for case in CASES]
  assert {name: names.count(name) for name in OPS} == {
    name: signs.get(name, 1) for name in OPS
  }
  assert set(names) == set(OPS)
  for name in PHOTOGRAPHS:
    assert list(RECORD[name]) == CASES
    assert {len(by_level) for by_level in RECORD[name].values()} == {31}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_level_gives_what_tensorflow_gives(name, case):
  image = photograph(name)
  got = [crc32(apply_op(image, op_of(case, level))) for level in LEVELS]
  assert got == RECORD[name][case]


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("image", [IMAGE, IMAGE[:, ::-1], IMAGE[::2, 3:20]])
def test_the_result_is_new_and_the_same_for_any_strides(name, image):
  before = image.copy()
  for value in STRENGTHS[name]:
    out = run(name, value, image, 0.5, 0.5)
    assert out.shape == image.shape and out.dtype == np.uint8
    assert not np.shares_memory(out, image)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(out, run(name, value, before, 0.5, 0.5))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("h, w", [(1, 1), (1, 7), (2, 2), (5, 1)])
def test_tiny_images_are_no_error(name, h, w):
  for value in STRENGTHS[name]:
    assert run(name, value, IMAGE[:h, :w]).shape == (h, w, 3)


@pytest.mark.parametrize(
  "name, value",
  [
    ("Rotate", 0.0),
    ("Rotate", -0.0),
    ("Posterize", 8),
    ("Color", 1.0),
    ("Contrast", 1.0),
    ("Brightness", 1.0),
    ("Sharpness", 1.0),
    ("ShearX", 0.0),
    ("ShearY", -0.0),
    ("TranslateX", 0.0),
    ("TranslateY", -0.0),
    ("Cutout", 0),
    ("SolarizeAdd", 0),
  ],
)
def test_strengths_that_change_nothing(name, value):
  np.testing.assert_array_equal(run(name, value), IMAGE)


def test_too_large_an_image_is_an_error():
  with pytest.raises(ValueError, match="2048"):
    run("Rotate", 1.0, np.zeros((1, 2049, 3), np.uint8))


def test_invert():
  assert grey_levels(run("Invert", image=row(0, 1, 200, 255))) == [
    255,
    254,
    55,
    0,
  ]
  np.testing.assert_array_equal(run("Invert"), 255 - IMAGE.astype(int))


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_keeps_the_upper_bits(bits):
  step = 2 ** (8 - bits)
  np.testing.assert_array_equal(
    run("Posterize", bits), IMAGE.astype(int) // step * step
  )


# AutoAugment's level 2 and RandAugment's from 22.5 on: D1 of the trials.
@pytest.mark.parametrize("bits", [0, 9, 12, 40])
def test_posterize_to_no_bits_or_over_eight_keeps_one(bits):
  want = np.where(IMAGE < 128, 0, 128)
  np.testing.assert_array_equal(run("Posterize", bits), want)


@pytest.mark.parametrize("threshold", [0, 1, 51, 128, 255])
def test_solarize(threshold):
  image = IMAGE.astype(int)
  want = np.where(image < threshold, image, 255 - image)
  np.testing.assert_array_equal(run("Solarize", threshold), want)


# Level 10 inverts everything, level 17 has 179: D2 of the trials.
@pytest.mark.parametrize(
  "threshold, wrapped", [(256, 0), (257, 1), (435, 179), (768, 0), (2560, 0)]
)
def test_thresholds_of_solarize_are_modulo_256(threshold, wrapped):
  image = IMAGE.astype(int)
  want = np.where(image < wrapped, image, 255 - image)
  np.testing.assert_array_equal(run("Solarize", threshold), want)


@pytest.mark.parametrize("addition", [0, 33, 127, 128, 300])
def test_solarize_add(addition):
  image = IMAGE.astype(int)
  want = np.where(image < 128, (image + addition).clip(0, 255), image)
  np.testing.assert_array_equal(run("SolarizeAdd", addition), want)


@pytest.mark.parametrize("image", [IMAGE, NARROW, row(7, 9), row(0, 255, 3)])
def test_auto_contrast(image):
  want = np.empty_like(image)
  for channel in range(3):
    plane = image[..., channel].astype(np.float32)
    scale = np.float32(255) / (plane.max() - plane.min())
    stretched = plane * scale - plane.min() * scale
    want[..., channel] = stretched.clip(0, 255).astype(np.uint8)
  np.testing.assert_array_equal(run("AutoContrast", image=image), want)


def test_auto_contrast_stretches_each_channel():
  image = NARROW.copy()
  image[..., 1] = 77
  out = run("AutoContrast", image=image)
  assert (out[..., 0].min(), out[..., 1].max()) == (0, 77)
  assert (out[..., 1] == 77).all()
  assert out[..., 2].max() in (254, 255)


@pytest.mark.parametrize("level", [0, 77, 255])
@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_a_constant_image_stays(name, level):
  image = np.full((20, 30, 3), level, np.uint8)
  np.testing.assert_array_equal(run(name, image=image), image)


def equalized(plane):
  counts = [int((plane == level).sum()) for level in range(256)]
  step = (plane.size - counts[plane.max()]) // 255
  if step == 0:
    return plane
  table, below = [], 0
  for count in counts:
    table.append(min((below + step // 2) // step, 255))
    below += count
  return np.array(table)[plane]


@pytest.mark.parametrize("image", [IMAGE, NARROW, IMAGE // 100, NARROW[:9]])
def test_equalize(image):
  out = run("Equalize", image=image)
  for channel in range(3):
    want = equalized(image[..., channel])
    np.testing.assert_array_equal(out[..., channel], want)


def test_equalize_by_hand():
  # 510 pixels below the last level, so a step of 2; the levels become the
  # number of pixels below, plus 1, over 2.
  image = row(*[10] * 255, *[20] * 255, *[30] * 7)
  want = [0] * 255 + [128] * 255 + [255] * 7
  assert grey_levels(run("Equalize", image=image)) == want


# The factors of levels 0 to 30, and some that no level has.
FACTORS = [level / 10 * 1.8 + 0.1 for level in range(31)] + [0.0, 0.333, 19.0]


@pytest.mark.parametrize("factor", FACTORS)
def test_brightness(factor):
  want = blend(np.zeros_like(IMAGE), IMAGE, factor)
  np.testing.assert_array_equal(run("Brightness", factor), want)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
  "h, w, mean", [(37, 41, 5), (15, 17, 0), (256, 256, 255), (300, 299, 255)]
)
def test_contrast_takes_the_number_of_pixels_for_the_mean(factor, h, w, mean):
  image = RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)
  want = blend(np.full_like(image, mean), image, factor)
  np.testing.assert_array_equal(run("Contrast", factor, image), want)


def grey(image):
  share = image.astype(np.float32) * np.float32(1 / 255)
  red, green, blue = np.moveaxis(share, -1, 0)
  weighted = red * np.float32(0.2989) + green * np.float32(0.587)
  weighted += blue * np.float32(0.114)
  return (weighted * np.float32(255.5)).astype(np.uint8)[..., None]


@pytest.mark.parametrize("factor", FACTORS)
def test_color(factor):
  want = blend(np.broadcast_to(grey(IMAGE), IMAGE.shape), IMAGE, factor)
  np.testing.assert_array_equal(run("Color", factor), want)


def test_grey_levels_stay_grey():
  image = row(*range(256))
  np.testing.assert_array_equal(run("Color", 0.0, image), image)


def test_grey_of_a_million_colours():
  image = RNG.integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
  want = np.broadcast_to(grey(image), image.shape)
  np.testing.assert_array_equal(run("Color", 0.0, image), want)


def smoothed(image):
  one, five = np.float32(1) / np.float32(13), np.float32(5) / np.float32(13)
  out = image.copy()
  for y in range(1, image.shape[0] - 1):
    for x in range(1, image.shape[1] - 1):
      total = np.zeros(3, np.float32)
      for i in range(9):
        pixel = image[y - 1 + i // 3, x - 1 + i % 3].astype(np.float32)
        total += pixel * (five if i == 4 else one)
      out[y, x] = total.astype(np.uint8)
  return out


SMOOTHED = smoothed(IMAGE)


@pytest.mark.parametrize("factor", FACTORS)
def test_sharpness(factor):
  want = blend(SMOOTHED, IMAGE, factor)
  np.testing.assert_array_equal(run("Sharpness", factor), want)


@pytest.mark.parametrize("h, w", [(3, 9000), (700, 13), (401, 41)])
def test_large_images_are_smoothed_as_small_ones(h, w):
  image = RNG.integers(0, 256, (h, min(w, 2048), 3), dtype=np.uint8)
  whole = run("Sharpness", 0.0, image)
  for first in range(h - 2):
    rows = run("Sharpness", 0.0, image[first : first + 3])
    np.testing.assert_array_equal(whole[first + 1], rows[1])
  np.testing.assert_array_equal(whole[[0, -1]], image[[0, -1]])


@pytest.mark.parametrize("factor", FACTORS)
def test_blends_of_all_pairs_of_levels(factor):
  for mean in range(1, 256):
    # Contrast blends with the number of pixels over 256.
    image = np.broadcast_to(LEVELS_OF_GREY[:, None, None], (256, mean, 3))
    out = run("Contrast", factor, image.astype(np.uint8))
    want = blend(np.full(256, mean), LEVELS_OF_GREY, factor)
    np.testing.assert_array_equal(out[:, 0, 0], want)


def gathered(image, to_x, to_y):
  """Take pixel (x, y) from (`to_x`, `to_y`) . (x, y, 1), or 128 outside."""
  h, w = image.shape[:2]
  out = np.full_like(image, 128)
  for y in range(h):
    for x in range(w):
      from_x, from_y = (
        nearest(
          np.float32(a) * np.float32(x)
          + np.float32(b) * np.float32(y)
          + np.float32(c)
        )
        for a, b, c in (to_x, to_y)
      )
      if 0 <= from_x < w and 0 <= from_y < h:
        out[y, x] = image[from_y, from_x]
  return out


def nearest(place):
  """Halves round away from zero, as in C's `round`."""
  exact = fractions.Fraction(float(place))
  whole = math.floor(abs(exact) + fractions.Fraction(1, 2))
  return whole if exact > 0 else -whole


SLOPES = [s * level / 10 * 0.3 for level in (1, 5, 10, 30) for s in (-1, 1)]


@pytest.mark.parametrize("slope", [*SLOPES, 0.5, -0.5, 3.0])
def test_shears(slope):
  want = gathered(IMAGE, (1, slope, 0), (0, 1, 0))
  np.testing.assert_array_equal(run("ShearX", slope), want)
  want = gathered(IMAGE, (1, 0, 0), (slope, 1, 0))
  np.testing.assert_array_equal(run("ShearY", slope), want)


@pytest.mark.parametrize(
  "pixels", [-1000.0, -41.0, -37.0, -36.0, -10.5, 0.4, 0.5, 7.0, 40.0, 750.0]
)
def test_translations(pixels):
  want = gathered(IMAGE, (1, 0, pixels), (0, 1, 0))
  np.testing.assert_array_equal(run("TranslateX", pixels), want)
  want = gathered(IMAGE, (1, 0, 0), (0, 1, pixels))
  np.testing.assert_array_equal(run("TranslateY", pixels), want)


def test_a_positive_translation_moves_left_or_up():
  image = row(1, 2, 3, 4)
  assert grey_levels(run("TranslateX", 1.0, image)) == [2, 3, 4, 128]
  assert grey_levels(run("TranslateX", -2.0, image)) == [128, 128, 1, 2]
  column = image.swapaxes(0, 1)
  out = run("TranslateY", 1.0, column).swapaxes(0, 1)
  assert grey_levels(out) == [2, 3, 4, 128]


def test_halves_go_away_from_zero():
  image = row(1, 2, 3, 4)
  assert grey_levels(run("TranslateX", 0.5, image)) == [2, 3, 4, 128]
  # From -0.5, 0.5, 1.5 and 2.5.
  assert grey_levels(run("TranslateX", -0.5, image)) == [128, 2, 3, 4]


def test_the_number_below_a_half_goes_to_zero():
  below = float(np.nextafter(np.float32(0.5), np.float32(0)))
  for pixels in (below, -below):
    image = row(1, 2)
    out = grey_levels(run("TranslateX", pixels, image))
    # At x = 1 the sum is rounded to 1.5, or is -below + 1.
    assert out == ([1, 128] if pixels > 0 else [1, 2])


@pytest.mark.parametrize("degrees", [-90.0, -30.0, -24.0, 0.1, 3.0, 21.0, 84.0])
def test_rotate(degrees):
  radians = np.float32(degrees) * np.float32(math.pi / 180)
  cos, sin = np.float32(math.cos(radians)), np.float32(math.sin(radians))
  right, down = np.float32(40), np.float32(36)
  # About the centre.
  offset_x = (right - (cos * right - sin * down)) / np.float32(2)
  offset_y = (down - (sin * right + cos * down)) / np.float32(2)
  want = gathered(IMAGE, (cos, -sin, offset_x), (sin, cos, offset_y))
  np.testing.assert_array_equal(run("Rotate", degrees), want)


@pytest.mark.parametrize("degrees, turns", [(90.0, 1), (180.0, 2), (-90.0, -1)])
def test_positive_angles_turn_counter_clockwise(degrees, turns):
  image = IMAGE[:, :37]
  np.testing.assert_array_equal(
    run("Rotate", degrees, image), np.rot90(image, turns)
  )


def test_rotate_is_that_of_real_numbers_but_for_a_few_pixels():
  image = np.arange(260 * 260, dtype=np.uint32).reshape(260, 260)
  image = image.view(np.uint8).reshape(260, 260, 4)[..., :3]
  radians = math.radians(17)
  y, x = np.mgrid[:260, :260] - 129.5
  from_x = np.rint(math.cos(radians) * x - math.sin(radians) * y + 129.5)
  from_y = np.rint(math.sin(radians) * x + math.cos(radians) * y + 129.5)
  inside = (from_x.clip(0, 259) == from_x) & (from_y.clip(0, 259) == from_y)
  want = image[from_y.clip(0, 259).astype(int), from_x.clip(0, 259).astype(int)]
  want = np.where(inside[..., None], want, 128)
  # Six roundings to float32, each by at most 2**-16 pixels. A pixel changes
  # where its place is that near to a half: on either side, in either direction.
  share = 6 * 2**-16 * 2 * 2
  assert (run("Rotate", 17.0, image) != want).any(-1).mean() < share


@pytest.mark.parametrize("y", [0.0, 0.37, 0.5, 0.999])
@pytest.mark.parametrize("x", [0.0, 0.6, 0.999])
@pytest.mark.parametrize("half", [0, 1, 9, 36, 100])
def test_cutout(y, x, half):
  want = IMAGE.copy()
  for i in range(37):
    for j in range(41):
      if -half <= i - int(y * 37) < half and -half <= j - int(x * 41) < half:
        want[i, j] = 128
  np.testing.assert_array_equal(run("Cutout", half, y=y, x=x), want)


def test_the_centre_of_a_cutout_is_inside():
  below = 1 - 2.0**-53
  cut = run("Cutout", 1, np.zeros((7, 5, 3), np.uint8), below, below)
  places = np.argwhere(cut[..., 0]).tolist()
  assert places == [[5, 3], [5, 4], [6, 3], [6, 4]]
