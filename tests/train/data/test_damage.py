"""Damaged images from file to batch: refused, or whole."""

import contextlib
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from podscale.train.data import Skips, eval_batches, open_source, train_batches
from podscale.train.data.__main__ import main
from podscale.train.data.decoding.picture import Picture
from podscale.train.data.images import open_images
from podscale.train.data.source import BadExampleError, Decoding
from podscale.train.data.tools.convert import convert
from podscale.train.data.tools.synthesize import synthetic_jpeg
from podscale.train.errors import UsageError
from podscale.train.settings.config import DataConfig

WHOLE = synthetic_jpeg(0, 0, width=96, height=160)
WARNED = WHOLE[:-2] + bytes(50) + WHOLE[-2:]
"""A file that libjpeg warns about; Pillow and TensorFlow accept it."""
RESOLUTION = 32


def refused(file):
  try:
    Picture(file).decode()
  except BadExampleError:
    return True
  return False


def damaged_below():
  """Make files with a damaged last tenth; decoding them whole fails."""
  draw = np.random.default_rng(0)
  while True:
    at = int(draw.integers(len(WHOLE) * 9 // 10, len(WHOLE) - 50))
    file = WHOLE[:at] + bytes(40) + WHOLE[at + 40 :]
    if refused(file):
      yield file


DAMAGED = next(damaged_below())


def folder_of(path, *files):
  for split in ("train", "val"):
    (path / split / "cats").mkdir(parents=True)
    for number, file in enumerate(files):
      (path / split / "cats" / f"{number}.jpg").write_bytes(file)
  return path


def batch(source, seed, **how):
  with contextlib.closing(
    train_batches(
      source,
      batch_size=1,
      resolution=RESOLUTION,
      seed=seed,
      crop="resized",
      flip=False,
      **how,
    )
  ) as batches:
    return next(batches)["image"]


def evaluated(source):
  return next(iter(eval_batches(source, batch_size=1, resolution=RESOLUTION)))


def converted(source, destination, **how):
  return convert(
    source,
    destination,
    num_classes=None,
    examples_per_shard=10,
    skips=Skips(0),
    console=Console(file=io.StringIO()),
    **how,
  )


def opened(path, split="train", **settings):
  return open_source(DataConfig(path=str(path), **settings), split, RESOLUTION)


def test_a_decoder_that_ends_with_the_crop_sees_no_damage_below_it():
  """Only verified data may be decoded in part."""
  out = np.empty((8, 8, 3), np.uint8)
  top = (0, 0, 8, 8)
  Picture(DAMAGED, Decoding(verified=True)).resize(top, out)
  np.testing.assert_array_equal(out, Picture(WHOLE).decode()[:8, :8])
  with pytest.raises(BadExampleError):
    Picture(DAMAGED).resize(top, out)


def test_damage_below_every_crop_stops_training(tmp_path):
  source = opened(folder_of(tmp_path, DAMAGED))
  for seed in range(12):
    with pytest.raises(UsageError, match=r"0\.jpg: cannot decode the JPEG"):
      batch(source, seed)
  with pytest.raises(UsageError, match=r"0\.jpg: cannot decode the JPEG"):
    evaluated(source)


def test_converted_data_is_decoded_in_part_and_gives_the_same(tmp_path):
  raw = folder_of(tmp_path / "raw", WHOLE)
  index = converted(raw, tmp_path / "made")
  assert not index.strict
  source, other = opened(tmp_path / "made"), opened(raw)
  assert source.decoding.verified and not other.decoding.verified
  assert opened(tmp_path / "made", cache=True).decoding.verified
  for seed in range(12):
    np.testing.assert_array_equal(batch(source, seed), batch(other, seed))
  np.testing.assert_array_equal(
    evaluated(source)["image"], evaluated(other)["image"]
  )


@pytest.mark.parametrize("strict", [False, True])
def test_what_a_conversion_has_verified(tmp_path, strict):
  raw = folder_of(tmp_path / "raw", WHOLE)
  index = converted(raw, tmp_path / "made", strict_jpeg=strict)
  assert index.strict is strict
  assert opened(tmp_path / "made").decoding.verified
  stricter = opened(tmp_path / "made", strict_jpeg=True).decoding
  assert stricter.strict and stricter.verified is strict
  # As podscale's first version wrote it.
  names = ("num_classes", "class_names", "examples_per_shard", "splits")
  record = {name: dataclasses.asdict(index)[name] for name in names}
  (tmp_path / "made" / "index.json").write_text(json.dumps(record))
  assert not opened(tmp_path / "made").decoding.verified


def test_what_libjpeg_warns_of_is_refused_where_it_is_asked_for(
  tmp_path, capsys
):
  raw = folder_of(tmp_path / "raw", WARNED)
  # Training, by default: as Pillow and TensorFlow.
  np.testing.assert_array_equal(
    evaluated(opened(raw))["image"][0],
    evaluated(opened(folder_of(tmp_path / "whole", WHOLE)))["image"][0],
  )
  with pytest.raises(UsageError, match="extraneous bytes before marker 0xd9"):
    batch(opened(raw, strict_jpeg=True), 0)
  with pytest.raises(UsageError, match="extraneous bytes before marker 0xd9"):
    evaluated(opened(raw, strict_jpeg=True))
  # verify refuses it by default, convert where it is asked to.
  assert main(["verify", str(raw)]) == 1
  assert "extraneous bytes before marker 0xd9" in capsys.readouterr().out
  assert main(["verify", str(raw), "--no-strict-jpeg"]) == 0
  with pytest.raises(UsageError, match="extraneous bytes before marker 0xd9"):
    converted(raw, tmp_path / "strict", strict_jpeg=True)
  assert main(["convert", str(raw), str(tmp_path / "made")]) == 0
  source = opened(tmp_path / "made")
  assert source[0]["image"] == WARNED
  # In part, it is what it is as a whole.
  assert source.decoding.verified
  for seed in range(12):
    np.testing.assert_array_equal(batch(source, seed), batch(opened(raw), seed))


def test_a_conversion_goes_on_as_strictly_as_it_began(tmp_path):
  raw = folder_of(tmp_path / "raw", WARNED)
  with pytest.raises(UsageError, match="extraneous bytes"):
    converted(raw, tmp_path / "made", strict_jpeg=True)
  with pytest.raises(UsageError, match="strict True, now False"):
    converted(raw, tmp_path / "made")


def test_a_changed_bit_of_a_converted_file_is_seen(tmp_path):
  """Reading compares the record's checksum; `verified` relies on it."""
  converted(folder_of(tmp_path / "raw", WHOLE), tmp_path / "made")
  path = next((tmp_path / "made").glob("train*"))
  whole = path.read_bytes()
  at = whole.index(WHOLE[200:400])
  draw = np.random.default_rng(0)
  for _ in range(30):
    data = bytearray(whole)
    data[at + int(draw.integers(len(WHOLE) - 400))] ^= 1 << int(
      draw.integers(8)
    )
    path.write_bytes(data)
    with pytest.raises(BadExampleError):
      open_images(tmp_path / "made", "train")[0]


def test_images_are_turned_where_it_is_asked_for(tmp_path):
  exif, file = Image.Exif(), io.BytesIO()
  exif[0x0112] = 6  # a quarter to the right: what was below is at the left
  pixels = np.zeros((64, 64, 3), np.uint8)
  pixels[32:] = 255
  Image.fromarray(pixels).save(file, "JPEG", exif=exif)
  raw = folder_of(tmp_path / "raw", file.getvalue())
  converted(raw, tmp_path / "made")
  for path in (raw, tmp_path / "made"):
    left = evaluated(opened(path))["image"][0]
    turned = evaluated(opened(path, exif_rotation=True))["image"][0]
    assert left[:10].max() < 20 and left[-10:].min() > 235
    assert turned[:, :10].min() > 235 and turned[:, -10:].max() < 20
