"""Data and devices of a run, and settings that do not fit them."""

import dataclasses

import numpy as np
import pytest

from podscale.train.data.tools.synthesize import synthesize
from podscale.train.errors import UsageError
from podscale.train.settings.config import (
  BatchNormConfig,
  DataConfig,
  ModelConfig,
)
from podscale.train.settings.presets import get_preset
from podscale.train.setup import set_up

SMOKE = get_preset("smoke")


def smoke(**changes):
  return dataclasses.replace(SMOKE, **changes)


def model(**changes):
  return dataclasses.replace(SMOKE.model, **changes)


def test_the_parts_of_a_run():
  run = set_up(SMOKE)
  assert run.mesh.shape == {"group": 4, "member": 2}
  assert (run.steps_per_epoch, run.total_steps) == (6.0, 12)
  assert run.num_classes == 10
  assert run.resolution == 32
  assert len(run.train_source) == 384


def test_steps_per_epoch_is_not_rounded():
  run = set_up(smoke(batch_size=80, eval_batch_size=64, epochs=2.5))
  assert run.steps_per_epoch == 4.8
  assert run.total_steps == 12


def test_more_logits_than_classes_is_allowed():
  assert set_up(smoke(model=model(num_classes=12))).num_classes == 12


def test_groups_by_images():
  run = set_up(smoke(batch_norm=BatchNormConfig(images_per_group=32)))
  assert run.mesh.shape == {"group": 2, "member": 4}


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (
      {"batch_size": 60},
      "--batch-size 60 does not divide by 8 devices; use 56",
    ),
    ({"batch_size": 4}, "--batch-size 4 does not divide by 8 devices; use 8"),
    (
      {"batch_size": 72, "data": DataConfig(source="synthetic", mixup_alpha=1)},
      "and --batch-size 72 gives 9 to each of 8 devices; use a multiple of 16",
    ),
    ({"eval_batch_size": 12}, "--eval-batch-size 12 does not divide by 8"),
    ({"batch_norm": BatchNormConfig(group_size=3)}, "3 does not divide 8"),
    ({"batch_norm": BatchNormConfig(group_size=16)}, "16"),
    ({"epochs": 0.1}, "0.1 epochs of 384 images are less than one batch of 64"),
    ({"model": ModelConfig(name="b9")}, "unknown model 'b9'; did you mean"),
    ({"model": model(num_classes=9)}, "the data has 10 classes but"),
    ({"model": model(resolution=15)}, "resolution 15 is too small"),
    ({"model": model(resolution=31, stem_stride=2)}, "at least 32 pixels"),
    ({"data": DataConfig(source="images")}, "data.path"),
  ],
)
def test_what_does_not_fit_is_one_line_with_the_numbers(changes, said):
  with pytest.raises(UsageError) as error:
    set_up(smoke(**changes))
  assert said in str(error.value)
  assert "\n" not in str(error.value)


def test_a_truncated_data_file_is_named(tmp_path):
  for name in ("train", "t10k"):
    for kind in ("images-idx3", "labels-idx1"):
      (tmp_path / f"{name}-{kind}-ubyte").write_bytes(
        np.array([0x803 if kind == "images-idx3" else 0x801], ">u4").tobytes()
      )
  data = DataConfig(source="fashion-mnist", path=str(tmp_path))
  with pytest.raises(UsageError, match="train-images-idx3-ubyte"):
    set_up(smoke(data=data))


def image_set(folder, layout, classes=3):
  synthesize(
    folder,
    layout,
    examples={"train": 70, "test": 8},
    classes=classes,
    width=8,
    height=8,
  )
  return folder


@pytest.mark.parametrize("layout", ["tfrecord", "array-record", "tar"])
def test_splits_of_different_classes_are_refused(tmp_path, layout):
  image_set(tmp_path / "data", layout, classes=10)
  for path in (tmp_path / "data").glob("validation*"):
    path.unlink()
  val = image_set(tmp_path / "other", "folder") / "val"
  val.rename(tmp_path / "data" / "val")
  data = DataConfig(path=str(tmp_path / "data"), num_classes=10)
  with pytest.raises(UsageError) as error:
    set_up(smoke(data=data))
  assert "the training images have 10 classes, the test images 3" in str(
    error.value
  )


@pytest.mark.parametrize("layout", ["folder", "tar"])
@pytest.mark.parametrize("count", [2, 3])
def test_another_sets_classes_are_those_of_the_training_images(
  tmp_path, layout, count
):
  image_set(tmp_path / "own", "folder")
  image_set(tmp_path / "other", layout, classes=count)
  data = DataConfig(
    path=str(tmp_path / "own"), eval_path=str(tmp_path / "other")
  )
  run = set_up(smoke(data=data))
  assert run.train_source.num_classes == run.test_source.num_classes == 3
  assert len(run.test_source) == 8


def test_other_class_names_are_refused(tmp_path):
  own, other = tmp_path / "own", tmp_path / "other"
  image_set(own, "array-record")
  image_set(other, "array-record")
  for folder, names in ((own, "a\nb\nc\n"), (other, "a\nc\nb\n")):
    (folder / "label.labels.txt").write_text(names)
  data = DataConfig(path=str(own), eval_path=str(other))
  with pytest.raises(UsageError, match="class 1 is 'b' in the training .*'c'"):
    set_up(smoke(data=data))


def test_class_names_from_a_file(tmp_path):
  image_set(tmp_path / "data", "tar")
  names = tmp_path / "names.txt"
  names.write_text("tench, Tinca tinca\ngoldfish\n\ngreat white shark\n")
  data = DataConfig(
    path=str(tmp_path / "data"), num_classes=3, class_names=str(names)
  )
  run = set_up(smoke(data=data))
  want = ("tench, Tinca tinca", "goldfish", "great white shark")
  assert run.train_source.class_names == run.test_source.class_names == want


@pytest.mark.parametrize(
  "text, message",
  [
    (b"a\nb\n", "has 2 class names, but the data has 3 classes"),
    (b"\xff\xfe", "not a UTF-8 text file"),
    (None, "No such file or directory"),
  ],
)
def test_class_names_that_do_not_fit_are_refused(tmp_path, text, message):
  image_set(tmp_path / "data", "folder")
  names = tmp_path / "names.txt"
  if text is not None:
    names.write_bytes(text)
  data = DataConfig(path=str(tmp_path / "data"), class_names=str(names))
  with pytest.raises(UsageError) as error:
    set_up(smoke(data=data))
  assert str(names) in str(error.value) and message in str(error.value)
