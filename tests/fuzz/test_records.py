"""Shards of records, against readers written for this test alone."""

import functools
import io
import json
import struct
import tarfile
import tempfile
from pathlib import Path

import google_crc32c
from array_record.python.array_record_module import ArrayRecordReader
from hypothesis import HealthCheck, given, settings
from support.mutants import json_mutants, mutants

from podscale.train.data.images import open_images
from podscale.train.data.images.readers.example_proto import read_features
from podscale.train.data.loading.bad_examples import Skips
from podscale.train.data.tools.convert import convert
from podscale.train.data.tools.synthesize import synthesize

_CLASSES = 3
_COUNTS = {"train": 5, "test": 2}
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_fuzz = settings(
  max_examples=2000, deadline=200000, suppress_health_check=list(HealthCheck)
)


@functools.cache
def data_set(layout):
  """Make the files of a small data set, by name."""
  with tempfile.TemporaryDirectory() as folder:
    synthesize(
      Path(folder) / "data",
      layout,
      examples=_COUNTS,
      classes=_CLASSES,
      shards=1,
      width=8,
      height=8,
    )
    files = (Path(folder) / "data").iterdir()
    return {path.name: path.read_bytes() for path in files}


def train_shard(layout):
  return next(n for n in data_set(layout) if n.startswith("train"))


def fuzz_shard(tally, layout, reference):
  """Damage the training shard and read all its records."""
  name = train_shard(layout)
  with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    for other, content in data_set(layout).items():
      (folder / other).write_bytes(content)

    @_fuzz
    @given(mutants([data_set(layout)[name]]))
    def run(shard):
      (folder / name).write_bytes(shard)
      found = tally.read(lambda: examples(folder, "train"))
      if found is not None:
        tally.compare(found, reference(shard))

    run()


def examples(folder, split):
  source = open_images(folder, split, _CLASSES)
  read = [source[i] for i in range(len(source))]
  return [(example["image"], example["label"]) for example in read]


def test_tfrecord(tally):
  def reference(shard):
    found, at = [], 0
    while at < len(shard):
      head, at = shard[at : at + 8], at + 8
      assert _masked(head) == _CHECKSUM.unpack_from(shard, at)[0]
      at += 4
      (length,) = _LENGTH.unpack(head)
      record, at = shard[at : at + length], at + length
      assert _masked(record) == _CHECKSUM.unpack_from(shard, at)[0]
      at += 4
      features = read_features(record)
      label = features["image/class/label"] - 1
      found.append((features["image/encoded"], label))
    return found

  fuzz_shard(tally, "tfrecord", reference)


def _masked(data):
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_tar(tally):
  def reference(shard):
    with tarfile.open(fileobj=io.BytesIO(shard), mode="r:") as tar:
      contents = {member.name: tar.extractfile(member).read() for member in tar}
    images = [name for name in contents if name.endswith(".jpg")]
    assert len(images) == _COUNTS["train"], "samples were lost"
    return [
      (contents[name], int(contents[name.replace(".jpg", ".cls")]))
      for name in images
    ]

  fuzz_shard(tally, "tar", reference)


def test_array_record(tally):
  def reference(shard):
    with tempfile.NamedTemporaryFile(suffix=".array_record") as file:
      Path(file.name).write_bytes(shard)
      records = map(read_features, ArrayRecordReader(file.name).read_all())
      return [(record["image"], record["label"]) for record in records]

  fuzz_shard(tally, "array-record", reference)


def test_the_index_of_converted_data(tally):
  with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    origin, converted = folder / "origin", folder / "converted"
    origin.mkdir()
    for name, content in data_set("tfrecord").items():
      (origin / name).write_bytes(content)
    _convert(origin, converted)
    index = (converted / "index.json").read_bytes()
    expected = examples(converted, "train")

    def check(text):
      (converted / "index.json").write_bytes(text)
      found = tally.read(lambda: examples(converted, "train"))
      if found is not None:
        tally.compare(found, expected)

    @_fuzz
    @given(mutants([index]))
    def run_bytes(text):
      check(text)

    @_fuzz
    @given(json_mutants(json.loads(index)))
    def run_values(record):
      check(json.dumps(record).encode())

    run_bytes()
    run_values()


def _convert(origin, converted):
  from rich.console import Console

  convert(
    origin,
    converted,
    num_classes=_CLASSES,
    examples_per_shard=2,
    skips=Skips(0),
    console=Console(file=io.StringIO()),
  )
