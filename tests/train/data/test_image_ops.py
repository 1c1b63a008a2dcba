"""Each operation against its formula in plain NumPy, and known small images."""

import math

import numpy as np
import pytest

from podscale.train.data.image_ops import OPS, Op, apply_op

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (37, 41, 3), dtype=np.uint8)
# Few levels, and none of the extreme ones.
NARROW = RNG.integers(90, 140, (37, 41, 3), dtype=np.uint8)
LEVELS = np.arange(256)

STRENGTHS = {
  "AutoContrast": [0],
  "Equalize": [0],
  "Invert": [0],
  "Rotate": [-27.0, 5.5],
  "Posterize": [0, 2, 8],
  "Solarize": [0, 100, 256],
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
  """An image of one row of grey pixels."""
  return np.repeat(np.array(levels, np.uint8)[None, :, None], 3, axis=-1)


def grey_levels(image):
  assert (image == image[..., :1]).all()
  return image[0, :, 0].tolist()


def blend(a, b, percent):
  """Exact, for a factor in hundredths."""
  a, b = a.astype(int), b.astype(int)
  return ((100 * a + percent * (b - a)) // 100).clip(0, 255)


def test_there_are_sixteen_in_the_order_of_tensorflow():
  assert list(OPS) == list(STRENGTHS)


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
    ("Solarize", 256),
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


@pytest.mark.parametrize("bits", range(9))
def test_posterize_keeps_the_upper_bits(bits):
  step = 2 ** (8 - bits)
  np.testing.assert_array_equal(
    run("Posterize", bits), IMAGE.astype(int) // step * step
  )


@pytest.mark.parametrize("threshold", [0, 1, 51, 128, 255, 256])
def test_solarize(threshold):
  image = IMAGE.astype(int)
  want = np.where(image < threshold, image, 255 - image)
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


PERCENTS = [0, 10, 28, 46, 64, 82, 100, 118, 136, 154, 172, 190, 514]


@pytest.mark.parametrize("percent", PERCENTS)
def test_brightness(percent):
  want = blend(np.zeros_like(IMAGE), IMAGE, percent)
  np.testing.assert_array_equal(run("Brightness", percent / 100), want)


@pytest.mark.parametrize("percent", PERCENTS)
@pytest.mark.parametrize(
  "h, w, mean", [(37, 41, 5), (15, 17, 0), (256, 256, 255)]
)
def test_contrast_takes_the_number_of_pixels_for_the_mean(percent, h, w, mean):
  image = RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)
  want = blend(np.full_like(image, mean), image, percent)
  np.testing.assert_array_equal(run("Contrast", percent / 100, image), want)


def grey(image):
  weighted = image.astype(int) @ [2989, 5870, 1140]
  return (weighted * 511 // 5_100_000)[..., None]


@pytest.mark.parametrize("percent", PERCENTS)
def test_color(percent):
  want = blend(np.broadcast_to(grey(IMAGE), IMAGE.shape), IMAGE, percent)
  np.testing.assert_array_equal(run("Color", percent / 100), want)


def test_grey_levels_stay_grey():
  image = row(*range(256))
  np.testing.assert_array_equal(run("Color", 0.0, image), image)


def test_grey_is_that_of_float32_but_for_a_few_colours_in_a_million():
  image = RNG.integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
  share = image.astype(np.float32) * np.float32(1 / 255)
  r, g, b = np.moveaxis(share, -1, 0)
  weighted = r * np.float32(0.2989) + g * np.float32(0.587)
  weighted += b * np.float32(0.114)
  want = (weighted * np.float32(255.5)).astype(np.uint8)
  off = np.abs(run("Color", 0.0, image)[..., 0].astype(int) - want)
  # Over all 2**24 colours it is 1.4e-5 of them.
  assert off.max() <= 1 and off.mean() < 5e-5


def smoothed(image):
  out = image.astype(int)
  for y in range(1, image.shape[0] - 1):
    for x in range(1, image.shape[1] - 1):
      patch = image[y - 1 : y + 2, x - 1 : x + 2].astype(int)
      out[y, x] = (patch.sum((0, 1)) + 4 * patch[1, 1]) // 13
  return out


@pytest.mark.parametrize("percent", PERCENTS)
def test_sharpness(percent):
  want = blend(smoothed(IMAGE), IMAGE, percent)
  np.testing.assert_array_equal(run("Sharpness", percent / 100), want)


def test_sharpness_leaves_what_is_flat():
  for level in range(256):
    image = np.full((4, 5, 3), level, np.uint8)
    np.testing.assert_array_equal(run("Sharpness", 0.0, image), image)


@pytest.mark.parametrize("percent", [10, 64, 118, 172, 514])
def test_blends_of_all_pairs_of_levels(percent):
  factor = np.float32(percent / 100)
  differ = 0
  for mean in range(1, 256):
    # Contrast blends with the number of pixels over 256.
    image = np.broadcast_to(LEVELS[:, None, None], (256, mean, 3))
    out = run("Contrast", percent / 100, image.astype(np.uint8))
    a, b = np.full(256, mean), LEVELS
    np.testing.assert_array_equal(out[:, 0, 0], blend(a, b, percent))
    a, b = a.astype(np.float32), b.astype(np.float32)
    rounded = (a + factor * (b - a)).clip(0, 255).astype(int)
    assert np.abs(rounded - out[:, 0, 0]).max() <= 1
    differ += (rounded != out[:, 0, 0]).sum()
  # TensorFlow's float32 falls a level below the exact whole number at times.
  assert differ / 65536 < 0.002


def gathered(image, places):
  """Pixel (x, y) from places(x, y), in 1/65536 pixels; 128 outside."""
  h, w = image.shape[:2]
  out = np.full_like(image, 128)
  for y in range(h):
    for x in range(w):
      from_x, from_y = ((int(p) + 32768) >> 16 for p in places(x, y))
      if 0 <= from_x < w and 0 <= from_y < h:
        out[y, x] = image[from_y, from_x]
  return out


@pytest.mark.parametrize("slope", [-0.9, -0.3, -0.01, 0.06, 0.27, 3.0])
def test_shears(slope):
  k = round(slope * 65536)
  want = gathered(IMAGE, lambda x, y: (65536 * x + k * y, 65536 * y))
  np.testing.assert_array_equal(run("ShearX", slope), want)
  want = gathered(IMAGE, lambda x, y: (65536 * x, 65536 * y + k * x))
  np.testing.assert_array_equal(run("ShearY", slope), want)


@pytest.mark.parametrize(
  "pixels", [-1000.0, -41.0, -37.0, -36.0, -10.5, 0.4, 0.5, 7.0, 40.0, 750.0]
)
def test_translations(pixels):
  k = round(pixels * 65536)
  want = gathered(IMAGE, lambda x, y: (65536 * x + k, 65536 * y))
  np.testing.assert_array_equal(run("TranslateX", pixels), want)
  want = gathered(IMAGE, lambda x, y: (65536 * x, 65536 * y + k))
  np.testing.assert_array_equal(run("TranslateY", pixels), want)


def test_a_positive_translation_moves_left_or_up():
  image = row(1, 2, 3, 4)
  assert grey_levels(run("TranslateX", 1.0, image)) == [2, 3, 4, 128]
  assert grey_levels(run("TranslateX", -2.0, image)) == [128, 128, 1, 2]
  column = image.swapaxes(0, 1)
  out = run("TranslateY", 1.0, column).swapaxes(0, 1)
  assert grey_levels(out) == [2, 3, 4, 128]


@pytest.mark.parametrize("degrees", [-90.0, -30.0, -24.0, 0.1, 3.0, 21.0, 84.0])
def test_rotate(degrees):
  cos = round(math.cos(math.radians(degrees)) * 65536)
  sin = round(math.sin(math.radians(degrees)) * 65536)
  h, w = IMAGE.shape[:2]

  def places(x, y):
    # About the centre, whose place in half pixels is (w - 1, h - 1).
    right, down = 2 * x - (w - 1), 2 * y - (h - 1)
    from_x = cos * right - sin * down + 65536 * (w - 1)
    from_y = sin * right + cos * down + 65536 * (h - 1)
    return from_x // 2, from_y // 2

  np.testing.assert_array_equal(run("Rotate", degrees), gathered(IMAGE, places))


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
  # Places are off by up to 260 / 2 / 65536 pixels in each of two directions.
  assert (run("Rotate", 17.0, image) != want).any(-1).mean() < 0.005


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
