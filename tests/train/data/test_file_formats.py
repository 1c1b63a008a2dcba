"""Descriptions of files of another format."""

import bz2
import gzip
import lzma
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from podscale.train.data.decoding.picture import Picture
from podscale.train.data.file_formats import describe_format, wrong_format
from podscale.train.data.images.readers.array_record import (
  ArrayRecordImages,
  write_array_record,
)
from podscale.train.data.images.readers.tar import TarImages
from podscale.train.data.images.readers.tfrecord import (
  TFRecordImages,
  write_tfrecord,
)
from podscale.train.data.source import BadExampleError
from podscale.train.data.tools.synthesize import synthetic_jpeg
from podscale.train.errors import UsageError

READERS = {
  "a TFRecord file": TFRecordImages,
  "an ArrayRecord": ArrayRecordImages,
  "a tar file": TarImages,
}
RECORD = b"a record of some length"


def write_tar(path):
  with tarfile.open(path, "w") as tar:
    tar.addfile(tarfile.TarInfo("name"))


def write_parquet(path):
  pq.write_table(pa.table({"label": [1]}), path)


def write_lmdb(path):
  """Make the head of an LMDB file, version 1: page header and magic."""
  path.write_bytes(bytes(16) + (0xBEEFC0DE).to_bytes(4, "little") + bytes(999))


def write_zstd(path):
  path.write_bytes(pa.Codec("zstd").compress(RECORD).to_pybytes())


def write_zip(path):
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("name", RECORD)


WRITERS = {
  "compressed with gzip; decompress it first: gunzip": lambda path: (
    path.write_bytes(gzip.compress(RECORD))
  ),
  "compressed with zstd; decompress it first: unzstd": write_zstd,
  "compressed with xz; decompress it first: unxz": lambda path: (
    path.write_bytes(lzma.compress(RECORD))
  ),
  "compressed with bzip2; decompress it first: bunzip2": lambda path: (
    path.write_bytes(bz2.compress(RECORD))
  ),
  "a zip archive": write_zip,
  "a Parquet file; rename it to end in .parquet": write_parquet,
  "an ArrayRecord (Riegeli) file": lambda path: write_array_record(
    path, [RECORD]
  ),
  "a TFRecord file": lambda path: write_tfrecord(path, [RECORD]),
  "a tar file": write_tar,
  "an LMDB database": write_lmdb,
  "a JPEG file": lambda path: path.write_bytes(
    synthetic_jpeg(0, 0, width=8, height=8)
  ),
  "a web page": lambda path: path.write_text(
    "\n<!DOCTYPE html>\n<html>404</html>"
  ),
  "text that begins with 'Not found\\n'": lambda path: path.write_text(
    "Not found\n"
  ),
  "a Git LFS pointer, not the file itself; fetch the file: git lfs pull": (
    lambda path: path.write_text(
      "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
  ),
}


@pytest.mark.parametrize("expected", READERS)
@pytest.mark.parametrize("found", WRITERS)
def test_readers_name_the_format(tmp_path, expected, found):
  path = tmp_path / "train-0"
  WRITERS[found](path)
  if found.startswith(expected):
    assert describe_format(path.read_bytes()[:512]).startswith(expected)
    return
  with pytest.raises(UsageError) as error:
    READERS[expected]([path], 10)
  message = str(error.value)
  assert message.startswith(f"{path}: not {expected}: it is {found}")
  assert "\n" not in message


@pytest.mark.parametrize("expected", READERS)
@pytest.mark.parametrize("head", [b"\x00" * 99, b"\x01\xffbinary" * 99])
def test_an_unknown_format_is_shown(tmp_path, expected, head):
  path = tmp_path / "train-0"
  path.write_bytes(head)
  with pytest.raises(UsageError, match=f"not {expected}: it begins with b'"):
    READERS[expected]([path], 10)


def test_a_format_that_is_damaged_is_not_called_another(tmp_path):
  path = tmp_path / "train-0.tar"
  write_tar(path)
  data = bytearray(path.read_bytes())
  data[5] ^= 1
  path.write_bytes(data)
  with pytest.raises(UsageError, match="damaged at byte 0, or not a tar file"):
    TarImages([path], 10)


@pytest.mark.parametrize("found", [f for f in WRITERS if "JPEG" not in f])
def test_images_that_are_none_are_named(tmp_path, found):
  path = tmp_path / "0.jpg"
  WRITERS[found](path)
  with pytest.raises(BadExampleError) as error:
    Picture(path.read_bytes()).decode()
  message = str(error.value)
  assert message.startswith(f"not a JPEG, PNG, WebP or BMP file: it is {found}")
  assert "\n" not in message


def test_an_empty_file_is_called_so(tmp_path):
  path = tmp_path / "x"
  path.touch()
  assert str(wrong_format(path, "a tar file")) == f"{path}: the file is empty"


def test_array_records_are_local(tmp_path):
  shard = UPath("memory://bucket/train.array_record-0")
  with pytest.raises(UsageError, match="from local disks only; mount the buck"):
    ArrayRecordImages([shard], 10)
