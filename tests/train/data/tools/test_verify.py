"""Problems of a data set: all of them, in order, and no others."""

import os
import signal

import pytest
from upath import UPath

from podscale.train.data.__main__ import main
from podscale.train.data.images import open_images
from podscale.train.data.images.index import Shard, read_index, write_index
from podscale.train.data.images.readers.array_record import (
  sha256,
  write_array_record,
)
from podscale.train.data.tools.synthesize import synthesize, synthetic_jpeg

COUNTS = {"train": 11, "test": 5}
SIZE = {"width": 24, "height": 18}
CLASSES = 3
LAYOUTS = ["array-record", "folder", "tar", "tfrecord"]


def made(folder, layout):
  synthesize(folder, layout, examples=COUNTS, classes=CLASSES, **SIZE)
  return folder


def flags(layout):
  return [] if layout == "folder" else ["--num-classes", str(CLASSES)]


@pytest.fixture
def verified(capsys):
  def verify(folder, *flags):
    """Return the exit code, the report's lines and the errors' lines."""
    capsys.readouterr()
    code = main(["verify", str(folder), *flags])
    said = capsys.readouterr()
    lines = [line.rstrip() for line in said.out.splitlines()]
    report = [line for line in lines if not line.startswith("verifying ")]
    return code, report, said.err.splitlines()

  return verify


def damage(folder, split, numbers):
  """Zero the middle of images, in files of any format.

  Returns:
    Their places.
  """
  for path in filter(os.path.isfile, folder.rglob("*")):
    data = path.read_bytes()
    for i in numbers:
      jpeg = synthetic_jpeg(i, i % CLASSES, split=split, **SIZE)
      if (start := data.find(jpeg)) >= 0:
        middle = start + len(jpeg) // 2
        data = data[:middle] + bytes(40) + data[middle + 40 :]
    path.write_bytes(data)
  source = open_images(folder, split, CLASSES)
  return [source.where(i) for i in numbers]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_set_is_counted(tmp_path, verified, layout):
  code, report, errors = verified(made(tmp_path, layout), *flags(layout))
  assert (code, errors) == (0, [])
  assert report == [
    "train: 11 of 11 images are undamaged; 3 of 3 classes, 0 to 2, have 3 to 4 "
    "images each",
    "test: 5 of 5 images are undamaged; 3 of 3 classes, 0 to 2, have 1 to 2 "
    "images "
    "each",
  ]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
  "train, test", [([0], []), ([2, 3, 10], []), ([], [4]), ([5, 9], [0, 1, 2])]
)
def test_every_damaged_image_is_listed(tmp_path, verified, layout, train, test):
  folder = made(tmp_path, layout)
  wanted = [*damage(folder, "train", train), *damage(folder, "test", test)]
  code, report, errors = verified(folder, *flags(layout))
  assert (code, errors) == (1, [])
  listed = [line for line in report if "images are undamaged" not in line]
  assert len(listed) == len(wanted)
  for line, where in zip(listed, wanted, strict=True):
    assert line.startswith(f"{where}: ")
    assert len(line) > len(where) + 10  # and the reason
  counts = [line for line in report if "images are undamaged" in line]
  assert counts[0].startswith(f"train: {11 - len(train)} of 11 images")
  assert counts[1].startswith(f"test: {5 - len(test)} of 5 images")


def test_files_that_are_no_images_are_listed(tmp_path, verified):
  folder = made(tmp_path, "folder")
  empty, text = sorted((folder / "val" / "class-0001").iterdir())
  empty.write_bytes(b"")
  text.write_text("<html>404</html>")
  code, report, _ = verified(folder)
  assert code == 1
  assert [line.split(": ")[0] for line in report[1:3]] == [
    str(empty),
    str(text),
  ]


def test_where_one_split_cannot_be_opened_the_other_is_read(tmp_path, verified):
  folder = made(tmp_path, "tfrecord")
  (folder / "train-00001-of-00002").unlink()
  (where,) = damage(folder, "test", [3])
  code, report, errors = verified(folder, "--num-classes", "3")
  assert (code, errors, len(report)) == (1, [], 3)
  assert "1 of 2 shards are missing" in report[0]
  assert report[1].startswith(f"{where}: ")
  assert report[2].startswith("test: 4 of 5 images are undamaged")


@pytest.mark.parametrize("layout", ["array-record", "tar", "tfrecord"])
def test_every_shard_that_cannot_be_opened_is_listed(
  tmp_path, verified, layout
):
  """The other shards are read."""
  folder = tmp_path / "source"
  synthesize(folder, layout, examples=COUNTS, classes=3, shards=5, **SIZE)
  (where,) = damage(folder, "train", [7])  # in the fourth of 2, 2, 2, 2, 3
  first, _, third, *_ = sorted(folder.glob("train*"))
  *_, last = sorted(folder.glob("validation*"))
  first.write_bytes(b"")
  third.write_bytes(b"\x7f" + third.read_bytes()[1:-5_000])
  last.write_bytes(last.read_bytes()[:10])
  code, report, errors = verified(folder, "--num-classes", "3")
  assert (code, errors, len(report)) == (1, [], 6)
  for line, place in zip(report, [first, third, where], strict=False):
    assert line.startswith(str(place))
  assert report[3].startswith("train: 6 of 7 images are undamaged")
  assert report[4].startswith(str(last))
  assert report[5].startswith("test: 4 of 4 images are undamaged")


@pytest.mark.parametrize("layout", ["array-record", "tar", "tfrecord"])
def test_every_label_of_no_class_is_listed_once(tmp_path, verified, layout):
  folder = made(tmp_path, layout)
  source = open_images(folder, "train", CLASSES)
  code, report, errors = verified(folder, "--num-classes", "2")
  assert (code, errors) == (1, [])
  listed = [line for line in report if "is outside the 2 classes" in line]
  assert [line.split(": ")[0] for line in listed[:3]] == [
    source.where(i) for i in (2, 5, 8)
  ]
  assert len(listed) == 4 == len(report) - 2  # one more in the other split
  assert "train: 8 of 11 images are undamaged; 2 of 2 classes" in report[3]


def test_labels_that_may_begin_at_0_or_at_1_are_a_problem(tmp_path, verified):
  """No file records the first label, so training would guess it."""
  folder = made(tmp_path, "tfrecord")
  code, report, _ = verified(folder)
  assert (code, len(report)) == (1, 3)
  assert "--data.label-offset 0 or 1" in report[2]
  for flag in ("--data.label-offset", "--label-offset"):
    code, report, _ = verified(folder, flag, "1")
    assert (code, len(report)) == (0, 2)
    assert "3 of 1,000 classes, 0 to 2, have" in report[0]
  code, report, _ = verified(folder, "--label-offset", "0")
  assert (code, len(report)) == (0, 2)
  assert "3 of 1,000 classes, 1 to 3, have" in report[0]


@pytest.mark.parametrize("layout", ["array-record", "tar", "tfrecord"])
def test_every_damaged_shard_of_a_converted_set_is_listed(
  tmp_path, verified, layout
):
  source, folder = made(tmp_path / "source", layout), tmp_path / "converted"
  flags = ["--num-classes", "3", "--examples-per-shard", "3"]
  assert main(["convert", str(source), str(folder), *flags]) == 0
  assert verified(folder)[:2] == (0, ["6 of 6 shards match their checksums"])

  first, gone, last = (
    folder / f"{name}.array_record"
    for name in (
      "train-00000-of-00004",
      "train-00003-of-00004",
      "validation-00001-of-00002",
    )
  )
  for path in (first, last):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
  gone.unlink()
  code, report, errors = verified(folder)
  assert (code, errors) == (1, [])
  assert report[0].startswith(f"{first}: damaged: its SHA-256 is ")
  assert report[1] == f"{gone}: cannot be read: No such file or directory"
  assert report[2].startswith(f"{last}: damaged: its SHA-256 is ")
  assert report[3:] == ["3 of 6 shards match their checksums"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_converted_set_that_cannot_be_opened_is_a_problem(
  tmp_path, verified, split
):
  """An earlier convert wrote empty shards with right checksums."""
  source, folder = made(tmp_path / "source", "folder"), tmp_path / "converted"
  assert main(["convert", str(source), str(folder)]) == 0
  path = folder / "empty.array_record"
  write_array_record(path, [])
  index = read_index(folder)
  size = path.stat().st_size
  index.splits[split].append(Shard(path.name, 0, size, sha256(path)))
  write_index(folder, index)
  code, report, errors = verified(folder)
  assert (code, errors, len(report)) == (1, [], 2)
  assert report[0] == "3 of 3 shards match their checksums"
  assert report[1].startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["empty", "file", "nowhere"])
def test_where_there_is_no_data_set_one_line_says_so(tmp_path, verified, name):
  (tmp_path / "empty").mkdir()
  (tmp_path / "file").write_text("no data")
  code, report, errors = verified(tmp_path / name)
  assert (code, report, len(errors)) == (2, [], 1)
  assert str(tmp_path / name) in errors[0]


def test_data_behind_a_url_is_read(tmp_path, verified):
  local, remote = made(tmp_path / "a", "tar"), UPath("memory://verified")
  where = damage(local, "test", [2])[0]
  remote.mkdir(parents=True, exist_ok=True)
  for path in local.iterdir():
    (remote / path.name).write_bytes(path.read_bytes())
  code, report, errors = verified(remote, "--num-classes", "3")
  assert (code, errors, len(report)) == (1, [], 3)
  assert report[1].startswith(where.replace(str(local), str(remote)))


def test_ctrl_c_is_one_line(tmp_path, capsys):
  folder = made(tmp_path, "folder")
  file = next((folder / "train" / "class-0000").iterdir())
  file.write_bytes(synthetic_jpeg(0, 0, width=1000, height=1000))
  for i in range(2_000):  # some seconds of decoding
    os.link(file, file.with_name(f"again-{i}.jpg"))
  before = signal.signal(signal.SIGALRM, signal.default_int_handler)
  try:
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    code = main(["verify", str(folder)])
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
  assert code == 130
  assert (
    capsys.readouterr().err == "python -m podscale.train.data: interrupted\n"
  )
