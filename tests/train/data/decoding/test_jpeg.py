"""JPEG files decoded whole, in part, repaired, and damaged in many places."""

import io
import re
import warnings

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from podscale.train.data.decoding.jpeg import Jpeg
from podscale.train.data.source import BadExampleError
from podscale.train.data.tools.synthesize import synthetic_jpeg


def saved(image, **options):
  file = io.BytesIO()
  image.save(file, "JPEG", **options)
  return file.getvalue()


def noise(width, height, seed=0):
  """Make noise, so that every wrong row shows."""
  draw = np.random.default_rng(seed)
  return Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))


def pictured(size=(150, 113)):
  file = synthetic_jpeg(3, 1, width=size[0], height=size[1])
  return Image.open(io.BytesIO(file))


def reading(file, **how):
  """Return the pixels; None for a file that is refused in one line."""
  try:
    return Jpeg(file, **how).decode()
  except BadExampleError as error:
    assert "\n" not in str(error)
    return None


def as_pillow(file):
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


KINDS = {
  "4:4:4": saved(pictured(), subsampling="4:4:4"),
  "4:2:0": saved(pictured(), subsampling="4:2:0"),
  "4:2:2, restarts": saved(
    pictured(), subsampling="4:2:2", restart_marker_rows=1
  ),
  "restarts in rows": saved(pictured(), restart_marker_blocks=3),
  "grey": saved(pictured().convert("L")),
  "progressive": saved(pictured(), progressive=True),
  "progressive, restarts": saved(
    pictured(), progressive=True, restart_marker_rows=2
  ),
  "synthetic": synthetic_jpeg(0, 0, width=120, height=90),
}
INKS = Image.merge(
  "CMYK", [*noise(83, 61).split(), noise(83, 61, 1).split()[0]]
)


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
  jpeg = Jpeg(saved(noise(83, 211), quality=90, **options), verified=True)
  whole = jpeg.decode(reduction)
  heights = set()
  for rows in range(1, 211, 3):
    pixels = jpeg.decode_down_to(rows, reduction)
    heights.add(len(pixels))
    least = -(-rows // reduction)
    np.testing.assert_array_equal(pixels[:least], whole[:least])
  # Coded in several passes it is decoded whole.
  assert (len(heights) == 1) == ("progressive" in options)


@pytest.mark.parametrize("image", [noise(83, 211).convert("L"), INKS])
def test_grey_and_inks_are_cut_as_well(image):
  jpeg = Jpeg(saved(image, subsampling="4:4:4"), verified=True)
  pixels = jpeg.decode_down_to(10)
  assert pixels.shape == (16, 83, 3)
  np.testing.assert_array_equal(pixels, jpeg.decode()[:16])


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_inks_are_reduced_as_colours_are(reduction):
  flat = Image.new("CMYK", (83, 61), (200, 100, 50, 10))
  pixels = Jpeg(saved(flat)).decode(reduction)
  assert pixels.shape == (-(-61 // reduction), -(-83 // reduction), 3)
  np.testing.assert_allclose(pixels[0, 0], (53, 149, 197), atol=2)


@pytest.mark.parametrize("transform", [0, 2])  # CMYK, and YCCK
def test_inks_are_as_pillow_reads_them(transform):
  """Pillow computes c * k / 255, rounded; podscale floors c * k / 256."""
  file = bytearray(saved(INKS))
  file[file.index(b"Adobe") + 11] = transform
  file = bytes(file)
  got = Jpeg(file).decode().astype(int)
  np.testing.assert_allclose(got, as_pillow(file), atol=2)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_not_verified_is_decoded_whole(kind):
  """A partial decode refuses every file that a whole decode refuses."""
  file = KINDS[kind]
  refused = 0
  for damaged in damage(file, 40):
    whole = reading(damaged)
    try:
      pixels = Jpeg(damaged).decode_down_to(16)
    except BadExampleError:
      assert whole is None
      refused += 1
    else:
      np.testing.assert_array_equal(pixels, whole)
  assert refused > 10


@pytest.mark.parametrize("place", ["start", "tables", "frame", "scan"])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_in_the_header_are_passed_over(kind, place):
  file = KINDS[kind]
  at = {
    "start": 2,
    "tables": file.index(b"\xff\xdb"),
    "frame": re.search(b"\xff[\xc0\xc2]", file).start(),
    "scan": file.index(b"\xff\xda"),
  }[place]
  for extra in (b"a", b"ab", b"\xff\0", b"\0" * 1000, b"a\xff\0b\xff\xff"):
    odd = file[:at] + extra + file[at:]
    if place != "start":  # where Pillow looks for a marker
      np.testing.assert_array_equal(as_pillow(odd), as_pillow(file))
    for reduction in (1, 4):
      np.testing.assert_array_equal(
        Jpeg(odd).decode(reduction), Jpeg(file).decode(reduction)
      )
    with pytest.raises(BadExampleError, match="without strict-jpeg"):
      Jpeg(odd, strict=True)
    # It hides no damage behind it.
    for damaged in (odd[: len(odd) * 2 // 3], odd[:-2]):
      assert reading(damaged) is None


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_before_the_end_are_passed_over(kind):
  file = KINDS[kind]
  want = reading(file)
  for extra in (b"abc" * 5, b"\xff\0" * 20, b"\0" * 5000, b"\xff\xff\xff"):
    odd = file[:-2] + extra + file[-2:]
    np.testing.assert_array_equal(reading(odd), want)
  long = file[:-2] + b"a" * 100 + file[-2:]
  with pytest.raises(BadExampleError, match="without strict-jpeg"):
    Jpeg(long, strict=True).decode()
  np.testing.assert_array_equal(reading(file + b"behind the end"), want)


@pytest.mark.parametrize("kind", [k for k in KINDS if "restarts" in k])
def test_bytes_before_the_end_hide_no_missing_rows(kind):
  """libjpeg reports the bytes first and the missing rows second."""
  file = KINDS[kind]
  at = [found.start() for found in re.finditer(b"\xff[\xd0-\xd7]", file)][2]
  cut = file[:at] + b"abcdef" + b"\xff\xd9"
  # The decoder's message, and Pillow's result.
  with pytest.raises(ValueError, match="extraneous bytes before marker 0xd9"):
    simplejpeg.decode_jpeg(cut)
  assert not np.array_equal(as_pillow(cut), as_pillow(file))
  assert reading(cut) is None


def test_bytes_among_the_rows_are_refused():
  """No reader could know the pixels behind them."""
  file = KINDS["4:2:2, restarts"]
  at = file.index(b"\xff\xd1")
  assert reading(file[:at] + b"abc" + file[at:]) is None


def test_scan_parameters_of_another_kind_of_file_are_passed_over():
  file = KINDS["4:2:0"]
  at = file.index(b"\xff\xda") + 2 + 2 + 1 + 2 * 3
  assert file[at : at + 3] == bytes((0, 63, 0))
  odd = file[:at] + bytes((1, 5, 0x10)) + file[at + 3 :]
  with pytest.raises(ValueError, match="Invalid SOS parameters"):
    simplejpeg.decode_jpeg(odd)
  np.testing.assert_array_equal(reading(odd), reading(file))
  assert reading(odd, strict=True) is None
  # Nor do they hide what follows.
  assert reading(odd[: len(odd) // 2]) is None


def damage(file, count, seed=0):
  """Yield the file with a flipped bit, with zeroed bytes, and cut, in turn."""
  draw = np.random.default_rng(seed)
  for index in range(count):
    at = int(draw.integers(2, len(file)))
    data = bytearray(file)
    if index % 3 == 0:
      data[at] ^= 1 << int(draw.integers(8))
    elif index % 3 == 1:
      end = min(at + int(draw.integers(1, 40)), len(file))
      data[at:end] = bytes(end - at)
    else:
      del data[at:]
    if bytes(data) != file:
      yield bytes(data)


def warned(file):
  """Test if libjpeg warns about a file."""
  try:
    simplejpeg.decode_jpeg(file)
  except ValueError:
    return True
  return False


@pytest.mark.parametrize("kind", KINDS)
def test_damage_that_libjpeg_warns_of_is_refused(kind):
  """A wrong coefficient causes no warning and cannot be seen."""
  file = KINDS[kind]
  want = as_pillow(file)
  np.testing.assert_array_equal(reading(file, strict=True), want)
  refused = 0
  for damaged in damage(file, 150):
    pixels, strict = reading(damaged), reading(damaged, strict=True)
    if strict is None:
      refused += 1
    else:
      assert not warned(damaged)
      np.testing.assert_array_equal(strict, pixels)
    if pixels is not None:
      np.testing.assert_array_equal(pixels, as_pillow(damaged))
    # Reading at an eighth, as `convert` does, sees the same damage.
    try:
      Jpeg(damaged, strict=True).decode(8)
    except BadExampleError:
      assert strict is None
    else:
      assert strict is not None
  assert refused > 50  # those that are cut, and more
  for end in range(2, len(file) - 1, 97):
    assert reading(file[:end]) is None
