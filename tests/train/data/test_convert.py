"""Any data set to ArrayRecord: whole, stopped in between, and damaged."""

import io
import json

import pytest
from rich.console import Console

from podscale.train.data import Skips
from podscale.train.data import convert as module
from podscale.train.data.__main__ import main
from podscale.train.data.convert import convert, verify
from podscale.train.data.images import open_images
from podscale.train.data.synthetic_jpegs import synthesize
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
  assert verify(destination, console) == 5


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


def test_other_settings_do_not_go_on(tmp_path, console):
  source = made(tmp_path / "source")
  converted(source, tmp_path / "other", console)
  (tmp_path / "other" / "index.json").rename(
    tmp_path / "other" / "index.partial.json"
  )
  with pytest.raises(UsageError, match="examples_per_shard 4, this has 5"):
    converted(source, tmp_path / "other", console, examples_per_shard=5)


def test_a_full_folder_is_left_alone(tmp_path, console):
  source, destination = made(tmp_path / "source"), tmp_path / "converted"
  converted(source, destination, console)
  with pytest.raises(UsageError, match="holds a converted data set already"):
    converted(source, destination, console)
  with pytest.raises(UsageError, match="is not empty"):
    converted(destination, source, console)


def test_bad_images_stop_or_are_counted(tmp_path, console):
  source = made(tmp_path / "source", "folder")
  path = next((source / "train").rglob("00000004.jpg"))
  path.write_bytes(path.read_bytes()[:-30])
  with pytest.raises(UsageError, match="00000004.jpg: cannot decode"):
    converted(source, tmp_path / "first", console)
  skips = Skips(1)
  index = converted(source, tmp_path / "second", console, skips)
  assert sum(s.examples for s in index.splits["train"]) == 10
  assert "00000004.jpg" in skips.summary()


def test_a_changed_byte_is_found(tmp_path, console):
  destination = tmp_path / "converted"
  converted(made(tmp_path / "source"), destination, console)
  path = destination / "train-00001-of-00003.array_record"
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  with pytest.raises(UsageError, match=f"{path}: damaged: its SHA-256"):
    verify(destination, console)


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
  with pytest.raises(UsageError, match=r"index\.json: not an index") as error:
    open_images(tmp_path, "train")
  assert "\n" not in str(error.value)


def test_an_index_cannot_reach_outside_its_folder(tmp_path, console):
  destination = tmp_path / "converted"
  converted(made(tmp_path / "source"), destination, console)
  path = destination / "index.json"
  record = json.loads(path.read_text())
  record["splits"]["train"][0]["file"] = "../source/train-00000-of-00002"
  path.write_text(json.dumps(record))
  with pytest.raises(UsageError, match="is not a file in the folder"):
    open_images(destination, "train")


def test_the_command_line(tmp_path, capsys):
  source, destination = str(tmp_path / "a"), str(tmp_path / "b")
  small = ["--train", "7", "--test", "3", "--width", "24", "--height", "18"]
  assert main(["synthesize", source, "--layout", "tar", *small]) == 0
  assert main(["convert", source, destination, "--num-classes", "10"]) == 0
  assert main(["verify", destination]) == 0
  said = capsys.readouterr().out
  assert "train: 7 images of 10 classes" in said
  assert "2 shards are as they were written" in said
  assert main(["convert", source, destination]) == 2
  error = capsys.readouterr().err
  assert error.startswith("podscale-data: ") and error.count("\n") == 1
