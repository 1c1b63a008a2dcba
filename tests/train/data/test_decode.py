"""Image files of all kinds, whole and broken, decoded in full and in part."""

import io
import struct

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from podscale.train.data.decode import MOST_PIXELS, Picture
from podscale.train.data.source import BadExampleError
from podscale.train.data.synthetic_jpegs import synthetic_jpeg


def decode(file, reduction=1):
  return Picture(file).decode(reduction)


def image_size(image):
  picture = Picture(image)
  return picture.height, picture.width


def crop_and_resize(image, box, resolution, *, reduce):
  out = np.empty((resolution, resolution, 3), np.uint8)
  Picture(image).resize(box, out, reduce=reduce)
  return out


PHOTO = synthetic_jpeg(0, 1, width=1200, height=900)


def saved(image, kind="JPEG", **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def flat(colour=(200, 100, 50), size=(40, 30), mode="RGB"):
  return Image.new(mode, size, colour)


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
    # What is left of white under each ink, times that under black.
    (saved(flat((200, 100, 50, 10), mode="CMYK")), (53, 149, 197)),
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


def test_orientation_is_left_alone():
  exif = Image.Exif()
  exif[0x0112] = 6  # turned by a quarter
  assert decode(saved(flat(), exif=exif)).shape == (30, 40, 3)


def test_a_png_named_jpg_is_known_by_its_content():
  assert decode(saved(flat(), "PNG"))[0, 0].tolist() == [200, 100, 50]


def test_what_decoders_pass_over_is_passed_over():
  whole = decode(PHOTO)
  extra = PHOTO[:-2] + b"abc" + PHOTO[-2:]
  np.testing.assert_array_equal(decode(extra), whole)
  np.testing.assert_array_equal(decode(PHOTO + b"behind the end"), whole)


@pytest.mark.parametrize(
  "file, reason",
  [
    (b"", "neither a JPEG nor a whole PNG"),
    (b"GIF89a" + bytes(100), "neither a JPEG nor a whole PNG"),
    (PHOTO[:2], "no JPEG header"),
    (PHOTO[:300], "no JPEG header"),
    (PHOTO[: len(PHOTO) // 2], "Premature end"),
    (PHOTO[:-100], "Premature end"),
    (saved(flat(), "PNG")[:20], "neither a JPEG nor a whole PNG"),
    (saved(flat(), "PNG")[:-30], "neither a JPEG nor a whole PNG"),
  ],
)
def test_what_cannot_be_decoded_has_a_reason_in_one_line(file, reason, capfd):
  with pytest.raises(BadExampleError, match=reason) as error:
    decode(file)
  assert "\n" not in str(error.value)


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
  first = crop_and_resize(PHOTO, (10, 20, 300, 300), 300, reduce=True)
  np.testing.assert_array_equal(first, whole[10:310, 20:320])
  second = crop_and_resize(PHOTO, (40, 70, 300, 300), 300, reduce=False)
  np.testing.assert_array_equal(second, whole[40:340, 70:370])
  # What was cut first is not written over.
  np.testing.assert_array_equal(first, whole[10:310, 20:320])


def test_a_box_of_pixels_and_of_their_file_are_the_same():
  box = (10, 20, 447, 600)  # 447 pixels are not twice 224
  np.testing.assert_array_equal(
    crop_and_resize(PHOTO, box, 224, reduce=True),
    crop_and_resize(decode(PHOTO), box, 224, reduce=True),
  )


@pytest.mark.parametrize("box", [(0, 0, 900, 1200), (101, 203, 700, 777)])
def test_without_fine_detail_a_reduced_box_is_the_same_to_a_level(box):
  smooth = cv2.GaussianBlur(decode(PHOTO), (0, 0), 4)
  file = simplejpeg.encode_jpeg(smooth, quality=98)
  whole, reduced = (
    crop_and_resize(file, box, 224, reduce=r).astype(int) for r in (False, True)
  )
  assert np.abs(reduced - whole).mean() < 1.0


@pytest.mark.parametrize("box", [(0, 0, 900, 1200), (101, 203, 700, 777)])
def test_fine_detail_is_averaged(box):
  y, x, h, w = box
  average = cv2.resize(
    decode(PHOTO)[y : y + h, x : x + w],
    (224, 224),
    interpolation=cv2.INTER_AREA,
  )
  whole, reduced = (
    np.abs(crop_and_resize(PHOTO, box, 224, reduce=r).astype(int) - average)
    for r in (False, True)
  )
  assert reduced.mean() < whole.mean() / 2


def test_a_large_jpeg_in_cmyk_is_not_reduced():
  file = saved(flat((200, 100, 50, 10), size=(100, 100), mode="CMYK"))
  pixels = crop_and_resize(file, (60, 60, 40, 40), 10, reduce=True)
  np.testing.assert_allclose(pixels[5, 5], (53, 149, 197), atol=2)


def test_large_images():
  file = saved(flat(size=(2000, 1500)))
  pixels = crop_and_resize(file, (0, 0, 1000, 1000), 600, reduce=True)
  assert pixels.shape == (600, 600, 3)
  np.testing.assert_allclose(pixels[300, 300], (200, 100, 50), atol=2)


def test_a_jpeg_without_colour_subsampling():
  pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
  file = simplejpeg.encode_jpeg(pixels, quality=100, colorsubsampling="444")
  assert np.abs(decode(file).astype(int) - pixels).mean() < 2


def noise(width, height, seed=0):
  """What no two rows have in common, so that a wrong one is seen."""
  draw = np.random.default_rng(seed)
  return Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize(
  "options",
  [
    {"subsampling": "4:2:0"},
    {"subsampling": "4:2:2"},
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:0", "restart_marker_rows": 1},
    {"subsampling": "4:2:0", "progressive": True},
  ],
)
def test_rows_above_a_cut_are_those_of_the_whole_image(options, reduction):
  jpeg = saved(noise(83, 211), quality=90, **options)
  picture = Picture(jpeg)
  whole = picture.decode(reduction)
  heights = set()
  for rows in range(1, 211, 3):
    pixels = picture._decode_down_to(rows, reduction)
    heights.add(len(pixels))
    least = -(-rows // reduction)
    np.testing.assert_array_equal(pixels[:least], whole[:least])
  # Coded in several passes it is decoded whole.
  assert (len(heights) == 1) == ("progressive" in options)


def test_grey_is_cut_as_well():
  picture = Picture(saved(noise(40, 100).convert("L")))
  pixels = picture._decode_down_to(10, 1)
  assert pixels.shape == (16, 40, 3)
  np.testing.assert_array_equal(pixels, picture.decode()[:16])


def test_a_cut_does_not_hide_that_a_file_is_truncated():
  jpeg = saved(noise(83, 211), quality=90)
  box = (0, 0, 60, 60)
  assert len(Picture(jpeg)._decode_down_to(60, 1)) == 64
  for broken in (
    jpeg[: len(jpeg) // 8],  # in the rows that are needed
    jpeg[: len(jpeg) // 2],  # below them
  ):
    with pytest.raises(BadExampleError, match="cannot decode the JPEG"):
      crop_and_resize(broken, box, 32, reduce=False)


def test_bytes_among_the_rows_that_are_needed_are_passed_over():
  """As in a whole image, and not taken for the rows that are not read."""
  jpeg = saved(noise(83, 211), quality=90, restart_marker_rows=1)
  at = jpeg.index(b"\xff\xd1")  # at the second row of units
  odd = jpeg[:at] + b"abc" + jpeg[at:]
  got = Picture(odd)._decode_down_to(100, 1)[:100]
  np.testing.assert_array_equal(got, Picture(odd).decode()[:100])
