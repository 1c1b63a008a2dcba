"""Reports of inspect."""

import json
import shutil

import pytest

from podscale.train.data.__main__ import main
from podscale.train.data.images.readers.example_proto import write_features
from podscale.train.data.images.readers.tfrecord import write_tfrecord
from podscale.train.data.tools.synthesize import synthesize, synthetic_jpeg

JPEG = synthetic_jpeg(0, 0, width=8, height=8)


def made(folder, layout, classes=3, **examples):
  synthesize(
    folder,
    layout,
    examples=examples or {"train": 8, "test": 4},
    classes=classes,
    width=8,
    height=8,
  )
  return folder


def inspect(capsys, folder, *flags):
  code = main(["inspect", str(folder), *flags])
  out, err = capsys.readouterr()
  assert err == ""
  return code, out.splitlines()


@pytest.mark.parametrize(
  "layout, kind, first",
  [
    ("tfrecord", "TFRecord shards", 1),
    ("array-record", "ArrayRecord shards", 0),
    ("tar", "tar shards", 0),
    ("folder", "class folders", 0),
  ],
)
def test_a_set_that_is_ready(tmp_path, capsys, layout, kind, first):
  made(tmp_path, layout)
  (tmp_path / "train.idx").write_bytes(b"")
  code, lines = inspect(capsys, tmp_path, "--num-classes", "3")
  folders = layout == "folder"
  shards = "" if folders else " in 2 shards"
  train, val = ("/train", "/val") if folders else ("", "")
  by = "the folders in train/" if folders else "the default or --num-classes"
  names = ["class names: class-0000, class-0001, class-0002"] * folders
  assert (code, lines) == (
    0,
    [
      f"{tmp_path}: {kind}",
      f"train: 8 images{shards}, {tmp_path}{train}",
      f"  labels in the data: {first} to {first + 2}; class 0 has label "
      f"{first}",
      "  images per class: minimum 2, median 3, maximum 3; 0 of 3 "
      "classes have none",
      f"test: 4 images{shards}, {tmp_path}{val}",
      f"  labels in the data: {first} to {first + 2}; class 0 has label "
      f"{first}",
      "  images per class: minimum 1, median 1, maximum 2; 0 of 3 "
      "classes have none",
      f"classes: 3, from {by}",
      *names,
      "left out: 1 .idx",
      "ready",
    ],
  )


def test_more_classes_than_are_used_are_named(tmp_path, capsys):
  made(tmp_path, "tar")
  code, lines = inspect(capsys, tmp_path)
  assert code == 0 and "classes: 1,000, from the default" in "\n".join(lines)
  assert "  if there are no more classes: --num-classes 3" in lines


def wrong(capsys, folder, *flags):
  code, lines = inspect(capsys, folder, *flags)
  assert code == 1 and lines[-1] == "not ready"
  return [line for line in lines if line.startswith("problem: ")]


def test_labels_that_may_begin_at_0_or_at_1(tmp_path, capsys):
  made(tmp_path, "tfrecord")
  (problem,) = wrong(capsys, tmp_path)
  assert "they may start at 0 or at 1; give --data.label-offset" in problem
  assert inspect(capsys, tmp_path, "--label-offset", "1")[0] == 0


@pytest.mark.parametrize("layout", ["tfrecord", "tar"])
def test_no_number_of_classes_is_offered_for_labels_below_the_first(
  tmp_path, capsys, layout
):
  made(tmp_path, layout)
  code, lines = inspect(capsys, tmp_path, "--label-offset", "2")
  assert code == 1 and "these are all" not in "".join(lines)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_folder_of_one_split_names_the_folder_above(
  tmp_path, capsys, split
):
  made(tmp_path, "folder")
  problems = wrong(capsys, tmp_path / split)
  cure = f"; if this is the folder of one split, give {tmp_path}"
  assert problems and all(line.endswith(cure) for line in problems)


def test_labels_of_no_class(tmp_path, capsys):
  made(tmp_path, "tar")
  (problem,) = wrong(capsys, tmp_path, "--num-classes", "2")
  assert "label 2 is outside the 2 classes" in problem


def test_an_evaluation_set_without_labels(tmp_path, capsys):
  """TFDS labels the test images of ImageNet with -1."""
  made(tmp_path, "tar")
  for path in tmp_path.glob("validation*"):
    path.unlink()
  record = write_features({"image": JPEG, "label": -1})
  (tmp_path / "test").mkdir()
  write_tfrecord(tmp_path / "test" / "test-00000-of-00001", [record] * 3)
  problems = wrong(capsys, tmp_path, "--num-classes", "3")
  assert any("-1 marks images without a label" in each for each in problems)


def test_every_problem_is_listed(tmp_path, capsys):
  made(tmp_path, "tfrecord")
  (tmp_path / "train-00000-of-00002").unlink()
  (tmp_path / "validation-00001-of-00002").rename(
    tmp_path / "validation_train-00001-of-00002"
  )
  first, second = wrong(capsys, tmp_path)
  assert "validation_train-00001-of-00002 names two splits, train" in first
  assert (
    "validation_train-00001-of-00002 names two splits, validation" in second
  )


def test_splits_of_different_classes(tmp_path, capsys):
  made(tmp_path, "tfrecord", train=8)
  made(tmp_path / "more", "folder", classes=2)
  (tmp_path / "more" / "val").rename(tmp_path / "val")
  shutil.rmtree(tmp_path / "more")
  (problem,) = wrong(capsys, tmp_path, "--num-classes", "3")
  assert "training images have 3 classes, the test images 2" in problem
  assert "TFRecord shards in" in problem and "class folders in" in problem


def test_a_folder_with_nothing_in_it(tmp_path, capsys):
  first, second = wrong(capsys, tmp_path)
  assert "no train images" in first and "no test images" in second


def test_a_folder_that_is_not_there(tmp_path, capsys):
  (problem,) = wrong(capsys, tmp_path / "nowhere")
  assert (
    problem == f"problem: {tmp_path / 'nowhere'}: No such file or directory"
  )


def test_tfds_and_a_converted_set_say_their_classes(tmp_path, capsys):
  made(tmp_path / "birds", "array-record")
  label = {"classLabel": {"numClasses": "3"}}
  features = {"featuresDict": {"features": {"label": label}}}
  (tmp_path / "birds" / "features.json").write_text(json.dumps(features))
  (tmp_path / "birds" / "label.labels.txt").write_text("a\nb\nc\n")
  code, lines = inspect(capsys, tmp_path / "birds")
  assert code == 0
  assert lines[-4:] == [
    "classes: 3, from label.labels.txt",
    "class names: a, b, c",
    "left out: nothing",
    "ready",
  ]
  converted = tmp_path / "converted"
  assert main(["convert", str(tmp_path / "birds"), str(converted)]) == 0
  capsys.readouterr()
  code, lines = inspect(capsys, converted)
  assert code == 0
  assert lines[0].endswith("podscale's ArrayRecord shards with an index")
  assert lines[-4:-2] == ["classes: 3, from index.json", "class names: a, b, c"]


def test_a_name_cannot_pass_for_a_line(tmp_path, capsys):
  made(tmp_path, "folder", classes=2)
  for split in ("train", "val"):
    folder = tmp_path / split / "class-0001"
    folder.rename(folder.with_name("b\nready\x1b[2J"))
  _, lines = inspect(capsys, tmp_path)
  assert "class names: b\\nready\\x1b[2J, class-0000" in lines
