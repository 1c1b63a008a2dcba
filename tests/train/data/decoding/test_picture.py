"""Image files of all formats, whole and damaged, and boxes of them."""

import io
import math
import struct

import cv2
import matplotlib.cbook
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from podscale.train.data.augment.crop import (
  NUMBERS,
  eval_image,
  random_crop,
  train_image,
)
from podscale.train.data.decoding.picture import MOST_PIXELS, Picture
from podscale.train.data.source import BadExampleError, Decoding
from podscale.train.data.tools.synthesize import synthetic_jpeg


def decode(file, reduction=1):
  return Picture(file).decode(reduction)


def image_size(image):
  picture = Picture(image)
  return picture.height, picture.width


def crop_and_resize(image, box, resolution):
  out = np.empty((resolution, resolution, 3), np.uint8)
  Picture(image).resize(box, out)
  return out


PHOTO = synthetic_jpeg(0, 1, width=1200, height=900)


def saved(image, kind="JPEG", **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def flat(colour=(200, 100, 50), size=(40, 30), mode="RGB"):
  return Image.new(mode, size, colour)


OTHERS = {
  kind + str(options): saved(
    Image.fromarray(decode(synthetic_jpeg(0, 0, width=61, height=47))),
    *(kind,),
    **options,
  )
  for kind, options in (
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("BMP", {}),
  )
}
DAMAGED = list(OTHERS)


def test_sizes_are_read_from_the_header():
  assert image_size(PHOTO) == (900, 1200)
  assert image_size(saved(flat(), "PNG")) == (30, 40)
  assert image_size(np.zeros((5, 6, 3), np.uint8)) == (5, 6)


@pytest.mark.parametrize(
  "file, want",
  [
    (saved(flat()), (200, 100, 50)),
    (saved(flat(), progressive=True), (200, 100, 50)),
    (saved(flat(99, mode="L")), (99, 99, 99)),
    (saved(flat(99, mode="L"), "PNG"), (99, 99, 99)),
    (saved(flat((200, 100, 50, 7), mode="RGBA"), "PNG"), (200, 100, 50)),
    # 16 bits: 40,000 of 65,535 is 155.6 of 255.
    (saved(flat(40_000, mode="I;16"), "PNG"), (156, 156, 156)),
    # White that each ink leaves, times white that black leaves.
    (saved(flat((200, 100, 50, 10), mode="CMYK")), (53, 149, 197)),
    (saved(flat(), "WEBP", lossless=True), (200, 100, 50)),
    (
      saved(flat((200, 100, 50, 7), mode="RGBA"), "WEBP", lossless=True),
      (200, 100, 50),
    ),
    (saved(flat(), "BMP"), (200, 100, 50)),
    (saved(flat(99, mode="L"), "BMP"), (99, 99, 99)),
    (saved(flat(size=(1, 1))), (200, 100, 50)),
    (saved(flat(size=(10_000, 1))), (200, 100, 50)),
  ],
)
def test_all_kinds_become_three_channels(file, want):
  pixels = decode(file)
  assert pixels.dtype == np.uint8
  assert pixels.shape == (*image_size(file), 3)
  # JPEG and the conversion of inks round differently, by a level or two.
  np.testing.assert_allclose(
    pixels, np.broadcast_to(want, pixels.shape), atol=2
  )


def test_a_png_named_jpg_is_known_by_its_content():
  assert decode(saved(flat(), "PNG"))[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize(
  "file, reason",
  [
    (b"", "the file is empty"),
    (b"GIF89a" + bytes(100), "it begins with b'GIF89a"),
    (PHOTO[:2], "cannot read the JPEG's header"),
    (PHOTO[:300], "cannot read the JPEG's header"),
    (PHOTO[: len(PHOTO) // 2], "Premature end"),
    (PHOTO[:-100], "Premature end"),
    (saved(flat(), "PNG")[:20], "ends in its header"),
    (saved(flat(), "PNG")[:-30], "PNG file is truncated"),
    (
      saved(flat(), "PNG").replace(b"IDATx", b"IDATy"),
      "b'IDAT' at byte 33 has",
    ),
    (saved(flat(), "WEBP")[:20], "ends in its header"),
    (saved(flat(), "WEBP")[:-30], "truncated"),
    (saved(flat(), "BMP")[:20], "ends in its header"),
    (saved(flat(), "BMP")[:-30], "truncated"),
  ],
)
def test_what_cannot_be_decoded_has_a_reason_in_one_line(file, reason, capfd):
  with pytest.raises(BadExampleError, match=reason) as error:
    decode(file)
  assert "\n" not in str(error.value)
  assert capfd.readouterr() == ("", "")  # nor does a library print anything


def test_a_bomb_is_refused_before_it_is_decoded():
  header = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
  chunk = b"IHDR" + header
  bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk
  with pytest.raises(BadExampleError, match="60000 x 60000 pixels, more than"):
    decode(bomb)
  # A JPEG of the same size: the height and width of a small one written over.
  small = bytearray(saved(flat()))
  at = small.index(b"\xff\xc0") + 5
  small[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
  with pytest.raises(BadExampleError, match=f"{MOST_PIXELS:,} allowed"):
    image_size(bytes(small))


def test_the_largest_allowed_is_decoded():
  side = int(MOST_PIXELS**0.5)
  file = saved(Image.new("L", (side, side), 7))
  assert decode(file, 8).shape == (side // 8, side // 8, 3)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(64, 48), (65, 47)])
def test_reduced_sizes_are_rounded_up(reduction, size):
  pixels = decode(saved(flat(size=size)), reduction)
  w, h = (-(-side // reduction) for side in size)
  assert pixels.shape == (h, w, 3)


def test_a_box_is_cut_out():
  whole = decode(PHOTO)
  first = crop_and_resize(PHOTO, (10, 20, 300, 300), 300)
  np.testing.assert_array_equal(first, whole[10:310, 20:320])
  second = crop_and_resize(PHOTO, (40, 70, 300, 300), 300)
  np.testing.assert_array_equal(second, whole[40:340, 70:370])
  # The second crop does not overwrite the first.
  np.testing.assert_array_equal(first, whole[10:310, 20:320])


def test_a_box_of_pixels_and_of_their_file_are_the_same():
  box = (10, 20, 447, 600)  # 447 pixels are not twice 224
  np.testing.assert_array_equal(
    crop_and_resize(PHOTO, box, 224),
    crop_and_resize(decode(PHOTO), box, 224),
  )


@pytest.mark.parametrize("box", [(0, 0, 900, 1200), (101, 203, 700, 777)])
def test_without_fine_detail_a_reduced_box_is_the_same_to_a_level(box):
  smooth = cv2.GaussianBlur(decode(PHOTO), (0, 0), 4)
  file = simplejpeg.encode_jpeg(smooth, quality=98)
  reduced = crop_and_resize(file, box, 224).astype(int)
  whole = crop_and_resize(decode(file), box, 224)
  assert np.abs(reduced - whole).mean() < 1.0


@pytest.mark.parametrize("box", [(0, 0, 900, 1200), (101, 203, 700, 777)])
def test_fine_detail_is_averaged(box):
  y, x, h, w = box
  average = cv2.resize(
    decode(PHOTO)[y : y + h, x : x + w],
    (224, 224),
    interpolation=cv2.INTER_AREA,
  )
  reduced, whole = (
    np.abs(crop_and_resize(image, box, 224).astype(int) - average)
    for image in (PHOTO, decode(PHOTO))
  )
  assert reduced.mean() < whole.mean() / 2


def test_large_images():
  file = saved(flat(size=(2000, 1500)))
  pixels = crop_and_resize(file, (0, 0, 1000, 1000), 600)
  assert pixels.shape == (600, 600, 3)
  np.testing.assert_allclose(pixels[300, 300], (200, 100, 50), atol=2)


def test_a_jpeg_without_colour_subsampling():
  pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
  file = simplejpeg.encode_jpeg(pixels, quality=100, colorsubsampling="444")
  assert np.abs(decode(file).astype(int) - pixels).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA"])
def test_other_formats_are_as_pillow_reads_them(kind, mode):
  image = Image.fromarray(decode(synthetic_jpeg(0, 0, width=61, height=47)))
  options = {"lossless": True} if kind == "WEBP" else {}
  if mode == "RGBA":
    image.putalpha(image.convert("L"))
  file = saved(image.convert(mode), kind, **options)
  want = Image.open(io.BytesIO(file))
  assert image_size(file) == (want.height, want.width)
  np.testing.assert_array_equal(decode(file), np.asarray(want.convert("RGB")))


@pytest.mark.parametrize("file", DAMAGED, ids=str)
def test_a_damaged_file_is_refused_or_read_as_pillow_reads_it(file):
  """WebP and BMP have no checksums; Pillow's check is the best possible."""
  draw = np.random.default_rng(0)
  whole = OTHERS[file]
  want = np.asarray(Image.open(io.BytesIO(whole)).convert("RGB"))
  for _ in range(60):
    at, bit = int(draw.integers(len(whole))), 1 << int(draw.integers(8))
    data = bytearray(whole)
    data[at] ^= bit
    try:
      pixels = decode(bytes(data))
    except BadExampleError as error:
      assert "\n" not in str(error)
      continue
    if not np.array_equal(pixels, want):
      again = Image.open(io.BytesIO(data))
      np.testing.assert_array_equal(pixels, np.asarray(again.convert("RGB")))
  for end in range(0, len(whole), 101):
    with pytest.raises(BadExampleError):
      decode(whole[:end])


def animated(kind, **options):
  frames = [flat((200, 100, 50)), flat((1, 2, 3))]
  file = saved(
    frames[0], kind, save_all=True, append_images=frames[1:], **options
  )
  assert Image.open(io.BytesIO(file)).n_frames == 2
  return file


@pytest.mark.parametrize(
  "file", [animated("WEBP", lossless=True), animated("PNG")]
)
def test_an_animation_gives_its_first_frame(file):
  assert (decode(file) == (200, 100, 50)).all()


def test_a_first_frame_smaller_than_its_image_is_as_pillow_reads_it():
  file = bytearray(animated("WEBP", lossless=True))
  file[24:30] = struct.pack("<HBHB", 59, 0, 49, 0)  # 60 x 50 pixels
  frame = file.index(b"ANMF") + 8
  file[frame : frame + 6] = struct.pack("<HBHB", 2, 0, 3, 0)  # at (4, 6)
  pixels = decode(bytes(file))
  want = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
  assert want.shape == (50, 60, 3) and want[6, 4].tolist() == [200, 100, 50]
  np.testing.assert_array_equal(pixels, want)


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize(
  "size, resolution",
  [((500, 375), 224), ((1024, 683), 224), ((683, 1024), 100), ((300, 300), 64)],
)
def test_training_and_evaluation_resize_alike(size, resolution, verified):
  file = synthetic_jpeg(0, 1, width=size[0], height=size[1])
  picture = Picture(file, Decoding(verified=verified))
  evaluated = eval_image(picture, resolution, 32)
  numbers = numbers_of_the_centre(*size, resolution)
  trained = train_image(
    picture, numbers, resolution=resolution, crop="resized", flip=False
  )
  np.testing.assert_array_equal(trained, evaluated)


def numbers_of_the_centre(width, height, resolution):
  """Return random numbers that give the crop of evaluation."""
  side = resolution * min(width, height) // (resolution + 32)
  low = math.sqrt(0.08 * height * width)
  tallest = min(height, width)
  draw = [
    (1 - 3 / 4) / (4 / 3 - 3 / 4),
    (side - low) / (tallest - low),
    ((height - side + 1) // 2 + 0.5) / (height - side + 1),
    ((width - side + 1) // 2 + 0.5) / (width - side + 1),
  ]
  y, x, *sides = random_crop(height, width, draw)
  assert sides == [side, side]
  assert (y, x) == ((height - side + 1) // 2, (width - side + 1) // 2)
  return [0.9] * 4 + draw + [0.5] * (NUMBERS - 8)


def tensorflow_bicubic(pixels, size, *, a, corners):
  """Resize like TensorFlow's CPU kernel (core/kernels/image/resize_bicubic).

  Version 1 (`corners`) has a = -0.75, and output pixel i is at i * n / size;
  `half_pixel_centers` has a = -0.5, and the weights inside add up to 1.
  """

  def weight(t):
    t = abs(t)
    if t <= 1:
      return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

  def matrix(n):
    weights = np.zeros((size, n))
    for row in range(size):
      place = row * n / size if corners else (row + 0.5) * n / size - 0.5
      for tap in range(math.floor(place) - 1, math.floor(place) + 3):
        if corners or 0 <= tap < n:
          weights[row, min(max(tap, 0), n - 1)] += weight(place - tap)
    return weights / weights.sum(axis=1, keepdims=True)

  h, w = pixels.shape[:2]
  got = np.einsum(
    *("yi,xj,ijc->yxc", matrix(h), matrix(w), pixels.astype(float)),
    optimize=True,
  )
  return got.clip(0, 255)


def decibels(one, other):
  error = np.mean((one.astype(float) - other) ** 2)
  return 10 * math.log10(255**2 / error)


@pytest.mark.parametrize(
  "box, corners, centres",
  [
    ((0, 0, 512, 512), 25, 30),  # decoded at a half
    ((44, 0, 440, 440), 25, 45),
    ((100, 100, 300, 280), 34, 45),
    ((100, 100, 200, 200), 40, 45),
  ],
)
def test_distance_to_tensorflows_bicubic(box, corners, centres):
  """docs/how-to/data.md has the range over this photograph and two others."""
  with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
    photograph = file.read()
  got = crop_and_resize(photograph, box, 224)
  y, x, h, w = box
  pixels = decode(photograph)[y : y + h, x : x + w]
  for kind, least in (
    ({"a": -0.75, "corners": True}, corners),
    ({"a": -0.5, "corners": False}, centres),
  ):
    distance = decibels(got, tensorflow_bicubic(pixels, 224, **kind))
    assert least <= distance < least + 6
