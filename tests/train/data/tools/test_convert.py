"""Conversions of every format: whole, interrupted and damaged."""

import dataclasses
import fcntl
import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from support.full_disk import files_up_to
from upath import UPath

from podscale.train.data import Skips
from podscale.train.data.images import open_images
from podscale.train.data.images.index import read_index, write_index
from podscale.train.data.tools import convert as module
from podscale.train.data.tools.convert import convert
from podscale.train.data.tools.synthesize import synthesize
from podscale.train.errors import UsageError

COUNTS = {"train": 11, "test": 5}
CLASSES = 3


@pytest.fixture
def console():
  return Console(file=io.StringIO(), width=100)


def made(folder, layout="tfrecord"):
  synthesize(
    folder, layout, examples=COUNTS, classes=CLASSES, width=24, height=18
  )
  return folder


def converted(source, destination, console, skips=None, **changes):
  settings = {"num_classes": CLASSES, "examples_per_shard": 4} | changes
  skips = Skips(0) if skips is None else skips
  return convert(source, destination, skips=skips, console=console, **settings)


def contents(folder, split):
  source = open_images(folder, split)
  return [source[i] for i in range(len(source))]


@pytest.mark.parametrize(
  "layout", ["array-record", "folder", "tar", "tfrecord"]
)
def test_a_converted_data_set_is_the_same(tmp_path, console, layout):
  source = made(tmp_path / "source", layout)
  destination = tmp_path / "converted"
  index = converted(source, destination, console)
  assert sorted(path.name for path in destination.iterdir()) == [
    "index.json",
    "train-00000-of-00003.array_record",
    "train-00001-of-00003.array_record",
    "train-00002-of-00003.array_record",
    "validation-00000-of-00002.array_record",
    "validation-00001-of-00002.array_record",
  ]
  assert [s.examples for s in index.splits["train"]] == [4, 4, 3]
  for split in COUNTS:
    was = open_images(source, split, CLASSES)
    assert contents(destination, split) == [was[i] for i in range(len(was))]
    now = open_images(destination, split)
    for count in (len(was), 3):
      was.keep_first(count)
      now.keep_first(count)
      assert now.listing == was.listing
  after = open_images(destination, "train")
  assert after.num_classes == CLASSES
  names = [f"class-{c:04d}" for c in range(CLASSES)]
  assert after.class_names == (tuple(names) if layout == "folder" else None)


@pytest.mark.parametrize("offset, labels", [(0, [1, 2, 3]), (1, [0, 1, 2])])
def test_labels_begin_at_0_in_what_is_written(
  tmp_path, console, offset, labels
):
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  with pytest.raises(UsageError, match="may start at 0 or at 1"):
    converted(source, destination, console, num_classes=4)
  assert not destination.exists()
  index = converted(
    source, destination, console, num_classes=4, label_offset=offset
  )
  assert (index.label_offset, index.origin.labels) == (offset, [1, 3])
  assert read_index(destination) == index
  # A run may go on with it only if its labels began there, too.
  same = open_images(source, "train", 4, label_offset=offset)
  other = open_images(source, "train", 4, label_offset=1 - offset)
  assert open_images(destination, "train").listing == same.listing
  assert other.listing != same.listing
  for split in COUNTS:
    found = {example["label"] for example in contents(destination, split)}
    assert sorted(found) == labels


@pytest.mark.parametrize("layout", ["array-record", "tar", "tfrecord"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_of_no_class_is_refused_before_anything_is_written(
  tmp_path, console, layout, split
):
  """--skip-bad does not cover a wrong label."""
  counts = COUNTS | {split: 12}
  source, destination = tmp_path / "source", tmp_path / "converted"
  synthesize(source, layout, examples=counts, classes=4, width=24, height=18)
  with pytest.raises(
    UsageError, match=r"record \d+: label \d is outside the 3"
  ):
    converted(source, destination, console, Skips(100))
  assert not destination.exists()


def test_data_behind_a_url_is_converted(tmp_path, console):
  local, remote = made(tmp_path / "a"), UPath("memory://converted")
  remote.mkdir(parents=True, exist_ok=True)
  for path in local.iterdir():
    (remote / path.name).write_bytes(path.read_bytes())
  converted(remote, tmp_path / "b", console)
  converted(local, tmp_path / "c", console)
  for path in (tmp_path / "c").glob("*_record"):
    assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("whole", [0, 2])
def test_it_goes_on_behind_the_last_whole_shard(
  tmp_path, console, monkeypatch, whole
):
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  write, written = module.write_array_record, []

  def stopped(path, records):
    if len(written) == whole:
      path.write_bytes(b"half a shard")
      raise KeyboardInterrupt
    written.append(path.name)
    return write(path, records)

  monkeypatch.setattr(module, "write_array_record", stopped)
  with pytest.raises(KeyboardInterrupt):
    converted(source, destination, console)
  assert not (destination / "index.json").exists()
  times = {p.name: p.stat().st_mtime_ns for p in destination.glob("*_record")}
  assert len(times) == whole

  monkeypatch.setattr(module, "write_array_record", write)
  converted(source, destination, console)
  for name, time in times.items():
    assert (destination / name).stat().st_mtime_ns == time
  straight = tmp_path / "straight"
  converted(source, straight, console)
  for path in straight.iterdir():
    assert (destination / path.name).read_bytes() == path.read_bytes()
  assert len(list(destination.iterdir())) == len(list(straight.iterdir()))


def begun(source, destination, console, monkeypatch, shards=1, **settings):
  """Begin a conversion and stop it behind the first shards."""
  write, written = module.write_array_record, []

  def stopped(path, records):
    if len(written) == shards:
      raise KeyboardInterrupt
    written.append(path.name)
    return write(path, records)

  with monkeypatch.context() as patch:
    patch.setattr(module, "write_array_record", stopped)
    with pytest.raises(KeyboardInterrupt):
      converted(source, destination, console, **settings)
  return {path.name: path.read_bytes() for path in destination.iterdir()}


def refused(source, destination, console, **settings):
  """Return the line that refuses to continue; check that nothing is written."""
  before = {path.name: path.read_bytes() for path in destination.iterdir()}
  with pytest.raises(UsageError) as error:
    converted(source, destination, console, **settings)
  assert before == {p.name: p.read_bytes() for p in destination.iterdir()}
  message = str(error.value)
  assert "\n" not in message
  assert "remove " in message and "choose another folder" in message
  return message


@pytest.mark.parametrize(
  "change, named",
  [
    ({"examples_per_shard": 5}, "examples_per_shard 4, now 5"),
    ({"num_classes": 4, "label_offset": 1}, "num_classes 3, now 4"),
    ({"label_offset": 1}, "label_offset None, now 1"),
    ({"strict_jpeg": True}, "strict False, now True"),
  ],
)
def test_other_settings_do_not_go_on(
  tmp_path, console, monkeypatch, change, named
):
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  begun(source, destination, console, monkeypatch)
  assert named in refused(source, destination, console, **change)


def rename_a_class(source):
  (source / "train" / "class-0001").rename(source / "train" / "class-9")


def swap_two_files(source):
  """The source has other images under the same names."""
  one, other = sorted((source / "train" / "class-0000").iterdir())[:2]
  one.rename(source / "beside")
  other.rename(one)
  (source / "beside").rename(other)


def add_a_file_that_sorts_first(split):
  def add(source):
    path = next((source / split / "class-0000").iterdir())
    (path.parent / "00.jpg").write_bytes(path.read_bytes())

  return add


def remove_a_file(split):
  def remove(source):
    next((source / split / "class-0000").iterdir()).unlink()

  return remove


def rename_a_file(split):
  def rename(source):
    path = next((source / split / "class-0000").iterdir())
    path.rename(path.with_name("00.jpg"))

  return rename


@pytest.mark.parametrize(
  "change, named",
  [
    (add_a_file_that_sorts_first("train"), "had 11 train images"),
    (add_a_file_that_sorts_first("val"), "had 5 test images"),
    (remove_a_file("train"), "has 10"),
    (remove_a_file("val"), "has 4"),
    (rename_a_file("train"), "had train files of other names"),
    (rename_a_file("val"), "had test files of other names"),
    (swap_two_files, "train-00000-of-00003.array_record: was written from"),
  ],
)
@pytest.mark.parametrize("shards", [1, 3])
def test_a_changed_source_does_not_go_on(
  tmp_path, console, monkeypatch, change, named, shards
):
  source = made(tmp_path / "source", "folder")
  destination = tmp_path / "converted"
  begun(source, destination, console, monkeypatch, shards)
  change(source)
  assert named in refused(source, destination, console)


@pytest.mark.parametrize("layout", ["array-record", "tar", "tfrecord"])
def test_another_source_of_the_same_names_does_not_go_on(
  tmp_path, console, monkeypatch, layout
):
  source, destination = made(tmp_path / "a", layout), tmp_path / "converted"
  begun(source, destination, console, monkeypatch)
  synthesize(
    tmp_path / "b", layout, examples=COUNTS, classes=CLASSES, width=25, height=9
  )
  message = refused(tmp_path / "b", destination, console)
  assert "was written from other images" in message


@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_image_that_was_replaced_does_not_go_on(
  tmp_path, console, monkeypatch, place
):
  source, destination = made(tmp_path / "a", "folder"), tmp_path / "converted"
  begun(source, destination, console, monkeypatch)
  images = open_images(source, "train")
  path, other = (Path(images.where(i)) for i in (place, place + CLASSES))
  path.write_bytes(other.read_bytes())
  message = refused(source, destination, console)
  assert "was written from other images" in message


@pytest.mark.parametrize(
  "change",
  [
    lambda path: path.unlink(),
    lambda path: path.write_bytes(path.read_bytes()[:-70_000]),
    lambda path: path.write_bytes(b""),
  ],
)
def test_a_damaged_shard_does_not_go_on(tmp_path, console, monkeypatch, change):
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  begun(source, destination, console, monkeypatch)
  change(destination / "train-00000-of-00003.array_record")
  assert "00000-of-00003.array_record" in refused(source, destination, console)


def test_a_source_that_was_moved_goes_on(tmp_path, console, monkeypatch):
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  begun(source, destination, console, monkeypatch)
  moved = source.rename(tmp_path / "moved")
  index = converted(moved, destination, console)
  assert [index.examples(split) for split in COUNTS] == [11, 5]


def test_an_index_of_an_earlier_version_does_not_go_on(
  tmp_path, console, monkeypatch
):
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  begun(source, destination, console, monkeypatch)
  path = destination / "index.partial.json"
  record = json.loads(path.read_text())
  names = ("num_classes", "class_names", "examples_per_shard", "splits")
  path.write_text(json.dumps({name: record[name] for name in names}))
  assert "an earlier version" in refused(source, destination, console)


@pytest.mark.parametrize("shards", [1, 3, 4])
def test_an_unfinished_conversion_is_no_data_set(
  tmp_path, console, monkeypatch, shards
):
  """Its shards alone do not record the number of classes."""
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  begun(source, destination, console, monkeypatch, shards)
  for split in COUNTS:
    with pytest.raises(UsageError, match="an unfinished conversion"):
      open_images(destination, split)


def test_two_conversions_into_one_folder_are_refused(tmp_path, console):
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  destination.mkdir()
  other = os.open(destination, os.O_RDONLY)
  fcntl.flock(other, fcntl.LOCK_EX)
  try:
    with pytest.raises(UsageError, match="another conversion writes to this"):
      converted(source, destination, console)
    assert list(destination.iterdir()) == []
  finally:
    os.close(other)
  assert converted(source, destination, console).examples("train") == 11


def test_a_full_folder_is_left_alone(tmp_path, console):
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  converted(source, destination, console)
  with pytest.raises(UsageError, match="already holds a converted data set"):
    converted(source, destination, console)
  with pytest.raises(UsageError, match="not empty"):
    converted(destination, source, console)


def cut(source, split, *numbers):
  """Cut the files of some examples, named by their class folder."""
  for number in numbers:
    path = next((source / split).rglob(f"{number:08d}.jpg"))
    path.write_bytes(path.read_bytes()[:-30])


def test_bad_images_stop_or_are_counted(tmp_path, console):
  source = made(tmp_path / "source", "folder")
  cut(source, "train", 4)
  with pytest.raises(UsageError, match="00000004.jpg: cannot decode"):
    converted(source, tmp_path / "first", console)
  skips = Skips(1)
  index = converted(source, tmp_path / "second", console, skips)
  assert index.examples("train") == 10
  assert "00000004.jpg" in skips.summary()
  assert list(index.skipped) == [str(next(source.rglob("00000004.jpg")))]
  # The train listing lacks the left-out image; the other split is unchanged.
  listings = {
    split: (open_images(source, split), open_images(tmp_path / "second", split))
    for split in COUNTS
  }
  assert listings["train"][0].listing != listings["train"][1].listing
  assert listings["test"][0].listing == listings["test"][1].listing


@pytest.mark.parametrize(
  "split, number, names",
  [
    ("train", 0, ["train-00000-of-00002", "train-00001-of-00002"]),
    ("train", 1, ["train-00000-of-00002", "train-00001-of-00002"]),
    ("train", 2, ["train-00000-of-00002", "train-00001-of-00002"]),
    ("val", 0, ["validation-00000-of-00001"]),
    ("val", 1, ["validation-00000-of-00001"]),
  ],
)
@pytest.mark.parametrize("stopped", [False, True])
def test_no_shard_is_empty(
  tmp_path, console, monkeypatch, split, number, names, stopped
):
  """Any shard may have only bad images, also where a conversion stopped."""
  source = made(tmp_path / "source", "folder")
  destination = tmp_path / "converted"
  count = {"train": 11, "val": 5}[split]
  bad = range(4 * number, min(4 * number + 4, count))
  cut(source, split, *bad)
  behind = number + 1 + 3 * (split == "val")
  if stopped and behind < 5:
    begun(source, destination, console, monkeypatch, behind, skips=Skips(4))
  index = converted(source, destination, console, Skips(4))
  which = {"train": "train", "val": "test"}[split]
  assert [s.file for s in index.splits[which]] == [
    f"{name}.array_record" for name in names
  ]
  assert index.examples(which) == count - len(bad)
  assert len(list(destination.iterdir())) == 5  # four shards and the index
  was = open_images(source, which)
  kept = [was[i] for i in range(count) if i not in bad]
  assert contents(destination, which) == kept
  (destination / "index.json").unlink()  # the names alone are whole, too
  assert len(open_images(destination, which, CLASSES)) == len(kept)


def test_it_goes_on_where_it_was_stopped_renaming(
  tmp_path, console, monkeypatch
):
  source = made(tmp_path / "source", "folder")
  destination = tmp_path / "converted"
  cut(source, "train", 0, 1, 2, 3)
  with monkeypatch.context() as patch:
    patch.setattr(module, "_finish", lambda *_: None)
    converted(source, destination, console, Skips(4))
  path = destination / "train-00001-of-00003.array_record"
  path.rename(destination / "train-00000-of-00002.array_record")
  index = converted(source, destination, console, Skips(4))
  assert {path.name for path in destination.iterdir()} == {
    "index.json",
    *(shard.file for shards in index.splits.values() for shard in shards),
  }
  assert len(contents(destination, "train")) == 7


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_good_images_is_refused(tmp_path, console, split):
  source = made(tmp_path / "source", "folder")
  count = {"train": 11, "val": 5}[split]
  cut(source, split, *range(count))
  name = {"train": "train", "val": "test"}[split]
  for _ in "ab":  # called again, too
    with pytest.raises(UsageError, match=f"all {count} {name} images are bad"):
      converted(source, tmp_path / "converted", console, Skips(100))
  assert not (tmp_path / "converted" / "index.json").exists()


def test_bad_images_before_and_after_a_stop_add_up(
  tmp_path, console, monkeypatch
):
  source = made(tmp_path / "source", "folder")
  destination = tmp_path / "converted"
  cut(source, "train", 1, 9)
  begun(source, destination, console, monkeypatch, 2, skips=Skips(1))
  with pytest.raises(UsageError, match="00000009.jpg"):
    converted(source, destination, console, Skips(1))
  skips = Skips(2)
  index = converted(source, destination, console, skips)
  assert len(skips) == len(index.skipped) == 2
  assert index.examples("train") == 9


def test_a_full_disk_is_one_line_and_the_next_call_goes_on(tmp_path, console):
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  with (
    files_up_to(70_000),
    pytest.raises(UsageError, match=r"cannot write .*train-00000-of-00003"),
  ):
    converted(source, destination, console)
  assert [path.name for path in destination.iterdir()] == ["index.partial.json"]
  index = converted(source, destination, console)
  assert [index.examples(split) for split in COUNTS] == [11, 5]


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), "convert the data"),
    (lambda path: path.unlink(), "No such file"),
  ],
)
def test_shards_that_are_not_as_indexed_are_refused(
  tmp_path, console, change, message
):
  destination = tmp_path / "converted"
  converted(made(tmp_path / "source"), destination, console)
  path = destination / "train-00001-of-00003.array_record"
  change(path)
  with pytest.raises(UsageError, match=f"{path.name}: .*{message}"):
    open_images(destination, "train")


@pytest.mark.parametrize(
  "text", ["", "[]", '{"splits": 3}', '{"num_classes": "x"}']
)
def test_an_index_that_is_none_is_named(tmp_path, text):
  (tmp_path / "index.json").write_text(text)
  with pytest.raises(
    UsageError, match=r"index\.json: damaged, or not an index"
  ) as error:
    open_images(tmp_path, "train")
  assert "\n" not in str(error.value)


def test_an_index_cannot_reach_outside_its_folder(tmp_path, console):
  destination = tmp_path / "converted"
  converted(made(tmp_path / "source"), destination, console)
  index = read_index(destination)
  first, *others = index.splits["train"]
  outside = dataclasses.replace(first, file=f"../source/{first.file}")
  index.splits["train"][:] = [outside, *others]
  write_index(destination, index)
  with pytest.raises(UsageError, match="which is no file of this folder"):
    open_images(destination, "train")


@pytest.mark.parametrize("name", ["examples", "sha256", "train", "listing"])
def test_an_index_that_was_changed_is_refused(tmp_path, console, name):
  destination = tmp_path / "converted"
  converted(made(tmp_path / "source"), destination, console)
  path = destination / "index.json"
  text = path.read_text()
  path.write_text(text.replace(f'"{name}"', f'"{name[:-1]}"', 1))
  with pytest.raises(UsageError, match="wrong checksum"):
    open_images(destination, "train")
