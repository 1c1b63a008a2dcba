"""TFRecord shards: impossible lengths, damage and remote paths."""

import tracemalloc

import pytest
from upath import UPath

from podscale.train.data.images.readers.example_proto import write_image
from podscale.train.data.images.readers.tfrecord import (
  TFRecordImages,
  find_records,
  write_tfrecord,
)
from podscale.train.data.source import BadExampleError
from podscale.train.errors import UsageError
from podscale.train.records.tfrecord import FOOTER, checksum

RECORDS = [write_image(bytes([i]) * (100 + i), i) for i in range(5)]


@pytest.fixture(params=["local", "remote"])
def path(request, tmp_path):
  if request.param == "local":
    path = tmp_path / "train-00000-of-00001"
  else:
    path = UPath("memory://records/train-00000-of-00001")
  write_tfrecord(path, RECORDS)
  return path


def refusal(path):
  with pytest.raises(UsageError) as error:
    TFRecordImages([path], 5)
  message = str(error.value)
  assert message.startswith(str(path)) and "\n" not in message
  return message


def header(length):
  data = length.to_bytes(8, "little")
  return data + FOOTER.pack(checksum(data))


def test_records_and_labels(path):
  source = TFRecordImages([path, path], 5)
  examples = [
    (e["image"], e["label"]) for e in map(source.__getitem__, range(10))
  ]
  assert examples == 2 * [(bytes([i]) * (100 + i), i) for i in range(5)]
  assert list(source.labels()) == [(i, i % 5, 0) for i in range(10)]
  source.keep_first(7)
  assert len(list(source.labels())) == 7


@pytest.mark.parametrize("length", [300, 2**40, 2**63 - 16, 2**63, 2**64 - 1])
@pytest.mark.parametrize("record", [0, 3])
def test_a_length_beyond_the_file_is_refused(path, length, record):
  data = bytearray(path.read_bytes())
  at = find_records(path)[record]
  data[at : at + 12] = header(length)
  path.write_bytes(data[: at + 200])
  tracemalloc.start()
  message = refusal(path)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert f"record {record}: its length is {length:,} bytes" in message
  assert f"the file's {at + 200:,} bytes" in message
  assert peak < 2**20


@pytest.mark.parametrize("cut", [1, 4, 10, 115, 130])
def test_a_shard_cut_short_is_refused(path, cut):
  """An unknown number of records is lost, so it is no bad example."""
  data = path.read_bytes()
  path.write_bytes(data[:-cut])
  assert "record 4: " in refusal(path)


def test_a_damaged_length_is_refused(path):
  data = bytearray(path.read_bytes())
  at = find_records(path)[2]
  for byte in range(12):
    damaged = bytearray(data)
    damaged[at + byte] ^= 1 << byte % 8
    path.write_bytes(damaged)
    assert "record 2: wrong checksum of the length" in refusal(path)


def test_a_damaged_record_is_a_bad_example(path):
  data = bytearray(path.read_bytes())
  start, end = find_records(path)[2:4]
  for at in range(start + 12, end):
    damaged = bytearray(data)
    damaged[at] ^= 1 << at % 8
    path.write_bytes(damaged)
    source = TFRecordImages([path], 5)
    with pytest.raises(BadExampleError, match="wrong checksum of the record"):
      source[2]
    assert [source[i]["label"] for i in (1, 3)] == [1, 3]


def test_a_shard_that_has_gone(path):
  source = TFRecordImages([path], 5)
  path.unlink()
  with pytest.raises(BadExampleError, match="cannot be read: No such file"):
    source[0]
  assert "cannot be read: No such file" in refusal(path)
  with pytest.raises(UsageError, match="cannot be read: No such file"):
    list(source.labels())
