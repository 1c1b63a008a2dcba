"""The same images in every format, whole and damaged."""

import io
import os
import tarfile

import pytest

from podscale.train.data import Skips, eval_batches
from podscale.train.data.images import open_images
from podscale.train.data.source import BadExampleError
from podscale.train.data.tools.synthesize import synthesize, synthetic_jpeg
from podscale.train.errors import UsageError

LAYOUTS = ["array-record", "folder", "tar", "tfrecord"]
SHARDED = ["array-record", "tar", "tfrecord"]
COUNTS = {"train": 11, "test": 5}
SIZE = {"width": 24, "height": 18}
CLASSES = 3


def made(folder, layout):
  synthesize(folder, layout, examples=COUNTS, classes=CLASSES, **SIZE)
  return folder


def shards(folder):
  return sorted(folder.glob("train*"))


def refusal(folder, split="train"):
  with pytest.raises(UsageError) as error:
    open_images(folder, split, CLASSES)
  assert "\n" not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_format_gives_the_same_pictures(tmp_path, layout, split):
  source = open_images(made(tmp_path, layout), split, CLASSES)
  assert len(source) == COUNTS[split]
  assert source.num_classes == CLASSES
  examples = [source[i] for i in range(len(source))]
  want = [
    (i % CLASSES, synthetic_jpeg(i, i % CLASSES, split=split, **SIZE))
    for i in range(COUNTS[split])
  ]
  assert [(e["label"], e["image"]) for e in examples] == want


def test_folders_of_shards_are_found(tmp_path):
  """imagenet_to_gcs leaves this layout on its own disk."""
  made(tmp_path, "tfrecord")
  for name in ("train", "validation"):
    (tmp_path / name).mkdir()
    for path in tmp_path.glob(f"{name}-*"):
      path.rename(tmp_path / name / path.name)
  assert len(open_images(tmp_path, "train")) == COUNTS["train"]
  assert len(open_images(tmp_path, "test")) == COUNTS["test"]


@pytest.mark.parametrize("layout", SHARDED)
def test_where_names_shard_and_record(tmp_path, layout):
  source = open_images(made(tmp_path, layout), "train", CLASSES)
  first, second = map(str, shards(tmp_path))
  # Five of eleven are in the first shard.
  assert source.where(4) == f"{first}, record 4"
  assert source.where(5) == f"{second}, record 0"
  assert source.where(10) == f"{second}, record 5"


def test_fewer_examples(tmp_path):
  source = open_images(made(tmp_path, "tar"), "train", CLASSES)
  source.keep_first(2)
  assert len(source) == 2


@pytest.mark.parametrize("layout", SHARDED)
def test_an_empty_shard_is_named(tmp_path, layout):
  path = shards(made(tmp_path, layout))[1]
  path.write_bytes(b"")
  assert str(path) in refusal(tmp_path)


@pytest.mark.parametrize("layout", SHARDED)
def test_a_file_of_another_kind_is_named(tmp_path, layout):
  path = shards(made(tmp_path, layout))[0]
  path.write_bytes(b"something else, and long enough for a header" * 50)
  assert str(path) in refusal(tmp_path)


@pytest.mark.parametrize(
  "layout, number", [("array-record", 0), ("tfrecord", 1), ("tar", 0)]
)
def test_a_missing_shard_is_numbered(tmp_path, layout, number):
  """A missing tar shard shows only if a later number exists."""
  shards(made(tmp_path, layout))[number].unlink()
  message = refusal(tmp_path)
  assert "1 of 2 shards are missing" in message
  assert message.endswith(f"number {number}")


@pytest.mark.parametrize("layout", ["array-record", "tfrecord"])
def test_a_flipped_bit_is_found_in_its_record_alone(tmp_path, layout):
  path = shards(made(tmp_path, layout))[0]
  data = bytearray(path.read_bytes())
  jpeg = synthetic_jpeg(2, 2, **SIZE)
  data[data.index(jpeg) + len(jpeg) // 2] ^= 1
  path.write_bytes(data)
  source = open_images(tmp_path, "train", CLASSES)
  with pytest.raises(BadExampleError, match=r"wrong checksum|damaged"):
    source[2]
  for i in (0, 1, 3, 4, 5):
    assert source[i]["image"] == synthetic_jpeg(i, i % CLASSES, **SIZE)


@pytest.mark.parametrize("layout", SHARDED)
def test_shards_cut_short_are_refused(tmp_path, layout):
  path = shards(made(tmp_path, layout))[1]
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
  assert str(path) in refusal(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_has_gone_is_a_bad_example(tmp_path, layout):
  source = open_images(made(tmp_path, layout), "test", CLASSES)
  path = next(tmp_path.rglob("val*/*/00000000.jpg"), None)
  (path or tmp_path / sorted(os.listdir(tmp_path))[-2]).unlink()
  skips = Skips(2)
  batches = eval_batches(source, batch_size=5, resolution=8, skips=skips)
  (batch,) = batches
  gone = 1 if layout == "folder" else 2
  want = [i % CLASSES for i in range(5)]
  assert batch["label"].tolist() == [-1] * gone + want[gone:]
  assert skips.summary().count("No such file") == gone


def test_a_named_pipe_is_a_bad_example(tmp_path):
  """The reader does not wait for a writer."""
  source = open_images(made(tmp_path, "folder"), "test", CLASSES)
  path = next(tmp_path.rglob("val/*/00000000.jpg"))
  path.unlink()
  os.mkfifo(path)
  with pytest.raises(BadExampleError, match="not a regular file"):
    source[0]


def test_two_formats_in_one_folder_are_refused(tmp_path):
  made(tmp_path, "tfrecord")
  for path in shards(made(tmp_path / "tar", "tar")):
    path.rename(tmp_path / path.name)
  assert "several formats: TFRecord shards and tar shards" in refusal(tmp_path)


def test_a_folder_with_nothing_known_says_what_is(tmp_path):
  message = refusal(tmp_path)
  assert "train-00000-of-01024" in message and "train/CLASS/*.jpg" in message
  assert "No such file" in refusal(tmp_path / "nowhere")


def tar(path, members):
  with tarfile.open(path, "w") as file:
    for name, data in members.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      file.addfile(member, io.BytesIO(data))


JPEG = synthetic_jpeg(0, 0, **SIZE)


def test_a_tar_cannot_write_outside_its_folder(tmp_path):
  inside = tmp_path / "data"
  inside.mkdir()
  names = ["../../escaped", f"{tmp_path}/escaped", "a/../../escaped"]
  members = {}
  for label, name in enumerate(names):
    members |= {f"{name}.jpg": JPEG, f"{name}.cls": str(label).encode()}
  tar(inside / "train-0.tar", members)
  source = open_images(inside, "train", CLASSES)
  assert [source[i]["label"] for i in range(3)] == [0, 1, 2]
  assert source[1]["image"] == JPEG
  assert sorted(tmp_path.rglob("*")) == [inside, inside / "train-0.tar"]


@pytest.mark.parametrize(
  "members, message",
  [
    (
      {"a/x.jpg": JPEG, "a/x.json": b"{}"},
      r"sample a/x has no label: neither a ",
    ),
    ({"x.cls": b"1"}, "sample x has no image"),
    ({"x.jpg": JPEG, "x.cls": b"cat"}, "x.cls has b'cat', expected a label"),
    ({"x.txt": b"1"}, "no images"),
  ],
)
def test_half_samples_are_named(tmp_path, members, message):
  tar(tmp_path / "train-0.tar", members)
  with pytest.raises(UsageError, match=message):
    open_images(tmp_path, "train", CLASSES)


def test_names_in_a_tar_may_have_more_dots_and_capitals(tmp_path):
  members = {"n01/a.JPEG": JPEG, "n01/a.cls": b" 2\n", "n01/a.info.txt": b"x"}
  tar(tmp_path / "train-0.tar", members)
  assert open_images(tmp_path, "train", CLASSES)[0]["label"] == 2
