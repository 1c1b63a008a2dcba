import dataclasses
import math
import subprocess
import sys
import typing

import jax
import pytest

from podscale.train.data.augment.image_ops import LARGEST
from podscale.train.errors import UsageError
from podscale.train.schedule import make_schedule
from podscale.train.settings.arguments import parse
from podscale.train.settings.config import Config, DataConfig
from podscale.train.settings.presets import PRESETS
from podscale.train.setup import set_up


def numbers(kind=Config):
  """Yield path and range of every number among the settings."""
  plain = typing.get_type_hints(kind)
  hints = typing.get_type_hints(kind, include_extras=True)
  for name, hint in plain.items():
    if dataclasses.is_dataclass(hint):
      yield from (((name, *path), r) for path, r in numbers(hint))
    elif {int, float} & {hint, *typing.get_args(hint)}:
      (allowed,) = hints[
        name
      ].__metadata__  # fails for a number without a range
      yield (name,), allowed


NUMBERS = dict(numbers())


def flag(path):
  return "--" + ".".join(path).replace("_", "-")


def changed(settings, path, value):
  name, *rest = path
  if rest:
    value = changed(getattr(settings, name), rest, value)
  return dataclasses.replace(settings, **{name: value})


def test_the_walk_finds_numbers_at_both_levels():
  assert {"--batch-size", "--model.depth", "--data.skip-bad"} <= {
    flag(path) for path in NUMBERS
  }


@pytest.mark.parametrize("path", NUMBERS, ids=flag)
def test_a_number_out_of_its_range_is_one_line_with_the_limits(path):
  allowed = NUMBERS[path]
  ends = (
    math.nextafter(allowed.low, -1),
    math.nextafter(allowed.high, math.inf),
  )
  bad = [math.nan, math.inf, -math.inf, 1e308, -1, 10**50, -(10**22), *ends]
  for value in bad:
    with pytest.raises(UsageError) as error:
      changed(PRESETS["smoke"], path, value)
    said = str(error.value)
    assert said.startswith(f"{flag(path)} must be from {allowed}, got ")
    assert "\n" not in said and len(said) < 160
    assert str(value)[:20] in said


@pytest.mark.parametrize("value", ["nan", "inf", "1e308", "9" * 50, "9" * 5000])
@pytest.mark.parametrize("path", NUMBERS, ids=flag)
def test_on_the_command_line_too(path, value):
  with pytest.raises(
    UsageError, match=f"^(Error parsing )?{flag(path)}"
  ) as error:
    parse(["smoke", flag(path), value])
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", NUMBERS, ids=flag)
def test_the_ends_of_the_ranges_make_a_run_or_one_line(path):
  for end in NUMBERS[path]:
    kind = int if isinstance(end, int) else float
    try:
      config = changed(PRESETS["smoke"], path, kind(end))
      run = set_up(dataclasses.replace(config, cpu_devices=8))
      assert run.total_steps > 0
      make_schedule(
        config.schedule,
        batch_size=config.batch_size,
        steps_per_epoch=run.steps_per_epoch,
        total_steps=run.total_steps,
      )
    except UsageError as error:
      assert "\n" not in str(error)


def test_a_run_of_too_many_steps_is_refused():
  data = DataConfig(source="synthetic", train_examples=2**30)
  config = dataclasses.replace(PRESETS["smoke"], data=data, epochs=1e6)
  with pytest.raises(UsageError, match="at most 2,147,483,647; lower --epochs"):
    set_up(config)


def test_every_seed_is_another_one():
  """JAX takes the lowest 32 bits of a seed and drops the rest."""
  low, high = NUMBERS["seed",]
  keys = [jax.random.key_data(jax.random.key(seed)) for seed in (low, high)]
  assert (keys[0] != keys[1]).any()
  assert (jax.random.key_data(jax.random.key(high + 1)) == keys[0]).all()


def test_the_largest_image_is_the_augmentation_s():
  assert NUMBERS["model", "resolution"].high == LARGEST


def test_settings_do_not_change():
  with pytest.raises(dataclasses.FrozenInstanceError):
    Config().batch_size = 1


def test_settings_and_presets_import_no_jax():
  code = (
    "import sys, podscale.train.settings.config; "
    "import podscale.train.settings.presets; "
    "print(*({'jax', 'flax', 'optax', 'numpy'} & set(sys.modules)))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == ""
