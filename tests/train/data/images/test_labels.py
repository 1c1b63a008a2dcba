"""Labels from 0 and from 1, with and without a setting for it."""

import io
import tarfile

import pytest

from podscale.train.data import Skips, eval_batches, train_batches
from podscale.train.data.images import open_images
from podscale.train.data.images.labels import check_labels
from podscale.train.data.images.readers.array_record import write_array_record
from podscale.train.data.images.readers.example_proto import write_features
from podscale.train.data.images.readers.tfrecord import (
  find_records,
  write_tfrecord,
)
from podscale.train.data.tools.synthesize import synthesize, synthetic_jpeg
from podscale.train.errors import UsageError

JPEG = synthetic_jpeg(0, 0, width=24, height=18)
CLASSES = 3
CONVENTIONS = {
  "image/class/label": ("image/encoded", 1),
  "label": ("image", 0),
}


def records(labels, name):
  image, _ = CONVENTIONS[name]
  return [write_features({image: JPEG, name: label}) for label in labels]


def write_tar(path, labels):
  with tarfile.open(path, "w") as tar:
    for index, label in enumerate(labels):
      for suffix, data in ((".jpg", JPEG), (".cls", str(label).encode())):
        info = tarfile.TarInfo(f"{index}{suffix}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def write_shard(folder, layout, labels, name, split="train"):
  if layout == "tar":
    write_tar(folder / f"{split}-0.tar", labels)
  elif layout == "array-record":
    path = folder / f"{split}-00000-of-00001.array_record"
    write_array_record(path, records(labels, name))
  else:
    write_tfrecord(folder / f"{split}-00000-of-00001", records(labels, name))


# A tar file's labels have no name.
KINDS = [
  ("array-record", "image/class/label"),
  ("array-record", "label"),
  ("tar", "label"),
  ("tfrecord", "image/class/label"),
  ("tfrecord", "label"),
]


@pytest.fixture(params=KINDS, ids="-".join)
def opened(request, tmp_path):
  """Return a function from labels, and an optional offset, to a source."""
  layout, name = request.param

  def open_with(labels, label_offset=None, split="train"):
    word = {"train": "train", "test": "val"}[split]
    write_shard(tmp_path, layout, labels, name, word)
    return open_images(tmp_path, split, CLASSES, label_offset=label_offset)

  open_with.first = CONVENTIONS[name][1]
  return open_with


def classes(source):
  return [source[i]["label"] for i in range(len(source))]


def refusal(call, *args):
  with pytest.raises(UsageError) as error:
    call(*args)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_where_labels_begin_by_default(opened):
  first = opened.first
  source = opened([first, first + 1, first + 2])
  assert classes(source) == [0, 1, 2]
  assert check_labels(source) == {first: 1, first + 1: 1, first + 2: 1}


@pytest.mark.parametrize("offset", [0, 1, 5])
def test_where_labels_begin_is_given(opened, offset):
  source = opened([offset, offset + 1, offset + 2], offset)
  assert classes(source) == [0, 1, 2]
  assert len(check_labels(source)) == 3


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_other_convention_is_refused_with_the_cure(opened, split):
  other = 1 - opened.first
  labels = [other + 1, other, other + 2]
  source = opened(labels, split=split)
  bad = labels.index(0 if opened.first else CLASSES)
  message = refusal(classes, source)
  assert message == refusal(check_labels, source)
  assert message.startswith(
    f"{source.where(bad)}: label {labels[bad]} is outside"
  )
  assert f"the 3 classes, whose labels are {opened.first} to" in message
  assert f"labels seem to start at {other}" in message
  assert f"--data.label-offset {other}" in message
  assert classes(opened(labels, other, split)) == [1, 0, 2]


@pytest.mark.parametrize("label", [-1, 9, 2**40, -(2**40)])
def test_a_label_of_no_class_is_never_skipped(opened, label):
  first = opened.first
  source = opened([first, label, first])
  skips = Skips(100)
  place = f"{source.where(1)}: label {label} is outside the 3 classes"
  train = train_batches(
    source,
    batch_size=3,
    resolution=8,
    seed=0,
    crop="none",
    flip=False,
    skips=skips,
  )
  evaluation = eval_batches(source, batch_size=3, resolution=8, skips=skips)
  for batches in (train, evaluation):
    assert refusal(next, iter(batches)).startswith(place)
  assert not skips
  assert refusal(check_labels, source).startswith(place)


def test_images_without_labels_are_called_so(opened):
  source = opened([-1, -1], split="test")
  assert "-1 marks images without a label" in refusal(classes, source)


def test_labels_that_may_begin_at_either_are_refused(tmp_path):
  """In this case nothing is out of range: class 0 or class 3 is absent."""
  for split in ("train", "val"):
    write_shard(tmp_path, "tfrecord", [1, 2, 1], "image/class/label", split)
  train, test = (
    open_images(tmp_path, split, CLASSES) for split in ("train", "test")
  )
  for splits in ([train], [test], [train, test]):
    message = refusal(check_labels, *splits)
    assert "labels are 1 to 2 of 3 classes" in message
    assert "--data.label-offset 0 or 1" in message
  for offset in (0, 1):
    source = open_images(tmp_path, "train", CLASSES, label_offset=offset)
    assert check_labels(source) == {1: 2, 2: 1}
  assert check_labels(open_images(tmp_path, "train", 2)) == {1: 2, 2: 1}


def test_one_split_settles_where_labels_begin_in_both(tmp_path):
  write_shard(tmp_path, "tfrecord", [1, 2, 3], "image/class/label", "train")
  write_shard(tmp_path, "tfrecord", [1, 2], "image/class/label", "val")
  splits = [open_images(tmp_path, s, CLASSES) for s in ("train", "test")]
  assert check_labels(*splits) == {1: 2, 2: 2, 3: 1}


def test_a_damaged_record_decides_nothing(tmp_path):
  """A flipped bit changes a label to 0, and the checksum shows it."""
  write_shard(tmp_path, "tfrecord", [1, 2, 3, 1], "image/class/label")
  path = tmp_path / "train-00000-of-00001"
  data = bytearray(path.read_bytes())
  borders = find_records(path)
  at = data.index(b"image/class/label", borders[3]) + 17
  at = data.index(1, at + 6)  # behind the lengths
  data[at] ^= 1
  path.write_bytes(data)
  source = open_images(tmp_path, "train", CLASSES)
  assert [label for _, label, _ in source.labels()] == [1, 2, 3, 0]
  assert check_labels(source) == {1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize(
  "layout", ["array-record", "folder", "tar", "tfrecord"]
)
def test_labels_without_images(tmp_path, layout):
  examples = {"train": 7, "test": 2}
  synthesize(tmp_path, layout, examples=examples, classes=3, width=9, height=9)
  source = open_images(tmp_path, "train", CLASSES)
  source.keep_first(5)
  want = [(i, i % 3 + (layout == "tfrecord")) for i in range(5)]
  assert [(s.example, s.label) for s in source.labels()] == want


@pytest.mark.parametrize("offset", [0, 1])
def test_folders_take_no_offset(tmp_path, offset):
  synthesize(tmp_path, "folder", examples={"train": 3, "test": 3}, classes=3)
  message = refusal(lambda: open_images(tmp_path, "train", label_offset=offset))
  assert f"leave --data.label-offset {offset} out" in message
