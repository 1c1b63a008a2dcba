import dataclasses
import subprocess
import sys

import pytest

from podscale.train.config import (
  BatchNormConfig,
  Config,
  DataConfig,
  ModelConfig,
  OptimizerConfig,
  ScheduleConfig,
)
from podscale.train.errors import UsageError


@pytest.mark.parametrize(
  "kind, field, value",
  [
    (ModelConfig, "num_classes", 0),
    (DataConfig, "train_examples", 0),
    (OptimizerConfig, "momentum", 1.0),
    (OptimizerConfig, "momentum", -0.1),
    (OptimizerConfig, "l2", -1e-5),
    (OptimizerConfig, "lars_weight_decay", -1e-5),
    (OptimizerConfig, "lars_epsilon", -1.0),
    (OptimizerConfig, "lars_trust_coefficient", 0.0),
    (OptimizerConfig, "rmsprop_decay", 1.0),
    (OptimizerConfig, "rmsprop_epsilon", 0.0),
    (ScheduleConfig, "lr_per_256", 0.0),
    (ScheduleConfig, "lr_per_256", float("nan")),
    (ScheduleConfig, "warmup_epochs", -1),
    (ScheduleConfig, "decay_epochs", 0),
    (ScheduleConfig, "power", 0),
    (ScheduleConfig, "end_learning_rate", -0.1),
    (BatchNormConfig, "images_per_group", 0),
    (BatchNormConfig, "group_size", 0),
    (Config, "batch_size", 0),
    (Config, "epochs", 0),
    (Config, "label_smoothing", 1.0),
    (Config, "ema_decay", -0.5),
    (Config, "cpu_devices", 0),
    (Config, "eval_batch_size", -1),
    (Config, "log_every_steps", 0),
  ],
)
def test_a_bad_value_is_named_with_its_field(kind, field, value):
  with pytest.raises(UsageError, match=field) as error:
    kind(**{field: value})
  assert str(value) in str(error.value)
  assert "\n" not in str(error.value)


def test_the_ends_of_the_ranges_are_allowed():
  ModelConfig(dropout=0.0, survival_prob=1.0)
  OptimizerConfig(momentum=0.0, l2=0.0, lars_weight_decay=0.0)
  ScheduleConfig(warmup_epochs=0, end_learning_rate=0)
  Config(label_smoothing=0.0, ema_decay=0.0)


def test_settings_do_not_change():
  with pytest.raises(dataclasses.FrozenInstanceError):
    Config().batch_size = 1


def test_settings_and_presets_import_no_jax():
  code = (
    "import sys, podscale.train.config, podscale.train.presets;"
    "print(*({'jax', 'flax', 'optax', 'numpy'} & set(sys.modules)))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == ""
