"""Settings that do not fit the devices, the data or each other."""

import dataclasses

import numpy as np
import pytest

from podscale.train.config import BatchNormConfig, DataConfig, ModelConfig
from podscale.train.errors import UsageError
from podscale.train.presets import get_preset
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
      "mixup takes images in pairs, and --batch-size 72 is 9 on each of 8",
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
