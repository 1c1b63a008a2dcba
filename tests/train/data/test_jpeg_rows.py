import io

import numpy as np
import pytest
from PIL import Image

from podscale.train.data.jpeg_rows import Rows, find_rows


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
  ],
)
def test_rows_are_found(file, unit):
  found = find_rows(file)
  assert found == Rows(found.offset, 50, unit)
  assert file[found.offset : found.offset + 2] == b"\0\x32"


def test_a_cut_changes_the_height_alone():
  file = jpeg()
  found = find_rows(file)
  cut = found.cut(file, 32)
  assert find_rows(bytes(cut)).height == 32
  changed = np.flatnonzero(
    np.frombuffer(file, "u1") != np.frombuffer(cut, "u1")
  )
  assert changed.tolist() == [found.offset + 1]


def test_what_cannot_be_cut():
  file = jpeg()
  header = file.index(b"\xff\xda")
  assert find_rows(jpeg(progressive=True)) is None
  assert find_rows(file[:header]) is None
  assert find_rows(b"\xff\xd8" + b"abc" + file[2:]) is None
  assert find_rows(b"\xff\xd8" + b"\xff" + file[2:]) is None
  # One component of three in the scan: others follow.
  one = bytearray(file)
  one[header + 4] = 1
  assert find_rows(bytes(one)) is None
