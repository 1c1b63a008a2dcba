import io
import re
import struct
import time

import numpy as np
import pytest
from PIL import Image

from podscale.train.data.decoding.jpeg_repair import repair_header
from podscale.train.data.decoding.jpeg_rows import (
  HeightField,
  find_height_field,
)
from podscale.train.data.decoding.jpeg_segments import find_end, header_segments
from podscale.train.data.decoding.orientation import jpeg_orientation


def jpeg(mode="RGB", **options):
  file = io.BytesIO()
  Image.new(mode, (30, 50)).save(file, "JPEG", **options)
  return file.getvalue()


@pytest.mark.parametrize(
  "file, unit",
  [
    (jpeg(subsampling="4:2:0"), 16),
    (jpeg(subsampling="4:2:2"), 8),
    (jpeg(subsampling="4:4:4"), 8),
    (jpeg("L"), 8),
    (jpeg("CMYK"), 8),
  ],
)
def test_rows_are_found(file, unit):
  found = find_height_field(file)
  assert found == HeightField(found.offset, 50, unit)
  assert file[found.offset : found.offset + 2] == b"\0\x32"


def test_a_cut_changes_the_height_alone():
  file = jpeg()
  found = find_height_field(file)
  cut = found.replaced(file, 32)
  assert find_height_field(bytes(cut)).height == 32
  changed = np.flatnonzero(
    np.frombuffer(file, "u1") != np.frombuffer(cut, "u1")
  )
  assert changed.tolist() == [found.offset + 1]


@pytest.mark.parametrize("extra", [b"abc", b"\xff", b"\xff\0a", b"\xff\xd0"])
def test_bytes_between_segments_are_passed_over(extra):
  file = jpeg()
  for segment in header_segments(file):
    odd = file[: segment.start] + extra + file[segment.start :]
    found = find_height_field(odd)
    assert found.height == 50
    assert odd[found.offset : found.offset + 2] == b"\0\x32"
    assert repair_header(odd) == repair_header(file) == file


def test_what_cannot_be_cut():
  file = jpeg()
  header = file.index(b"\xff\xda")
  assert find_height_field(jpeg(progressive=True)) is None
  assert find_height_field(file[:header]) is None
  # One component of three in the scan: others follow.
  one = bytearray(file)
  one[header + 4] = 1
  assert find_height_field(bytes(one)) is None
  # Two frames.
  frame = file[file.index(b"\xff\xc0") : file.index(b"\xff\xc4")]
  assert find_height_field(file[:header] + frame + file[header:]) is None


@pytest.mark.parametrize("sampling", [0, 5, 15])
def test_a_sampling_that_no_jpeg_has_is_no_unit(sampling):
  file = bytearray(jpeg())
  file[file.index(b"\xff\xc0") + 11] = 0x20 | sampling
  assert find_height_field(bytes(file)) is None


def test_the_end_is_behind_the_scans():
  for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
    file = jpeg(comment=b"no end: \xff\xd9", **options)
    assert find_end(file) == len(file) - 2
    assert find_end(file + file) == len(file) - 2
    assert find_end(file[:-2]) is None


def read_all(data):
  find_height_field(data)
  find_end(data)
  jpeg_orientation(data)
  assert len(repair_header(data)) <= len(data)


def test_any_bytes_are_read_without_an_error():
  draw = np.random.default_rng(0)
  exif = Image.Exif()
  exif[0x0112] = 6
  files = [jpeg(exif=exif), jpeg(progressive=True), jpeg("L", comment=b"hello")]
  for file in files:
    for end in range(len(file)):
      read_all(file[:end])
    for _ in range(2000):
      data = bytearray(file)
      for at in draw.integers(0, 400, int(draw.integers(1, 6))):
        data[at % len(data)] = draw.choice([0, 1, 2, 0xDA, 0xFF, at & 255])
      read_all(bytes(data))
  for _ in range(300):
    read_all(b"\xff\xd8" + draw.bytes(200))


@pytest.mark.parametrize(
  "unit",
  [
    *(b"\xff", b"\xff\0", b"\xff\x01", b"\0", b"\xff\xff\0"),
    *(b"\xff\xe0\0\2", b"\xff\xe0\0\0", b"\xff\xda\0\2", b"\xff\xc0\0\2"),
    b"\xff\xe1\0\x08Exif\0\0",
  ],
)
def test_megabytes_of_anything_are_read_at_once(unit):
  data = b"\xff\xd8" + unit * (4_000_000 // len(unit))
  begin = time.perf_counter()
  read_all(data)
  assert time.perf_counter() - begin < 2  # it takes some hundredths


def test_sizes_are_those_that_pillow_reads():
  """For headers with changed bytes the height is the same, or there is none."""
  draw = np.random.default_rng(1)
  file = jpeg()
  frame = re.search(b"\xff\xc0", file).start()
  same = 0
  for _ in range(500):
    data = bytearray(file)
    at = int(draw.integers(frame, frame + 19))
    struct.pack_into("B", data, at, int(draw.integers(256)))
    found = find_height_field(bytes(data))
    try:
      height = Image.open(io.BytesIO(data)).height
    except (OSError, SyntaxError):
      continue
    if found:
      same += 1
      assert found.height == height
  assert same > 100
