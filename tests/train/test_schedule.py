import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podscale.train.errors import UsageError
from podscale.train.schedule import make_schedule, peak_learning_rate
from podscale.train.settings.config import ScheduleConfig
from podscale.train.settings.presets import PRESETS

IMAGENET = 1_281_167
U = 2.0**-24  # relative rounding error of float32


def oracle(config, batch_size, steps_per_epoch, total_steps, step):
  """Compute the rate of one step in float64, from TensorFlow's rules."""
  initial = config.lr_per_256 * batch_size / 256
  warmup_steps = int(config.warmup_epochs * steps_per_epoch)
  if step < warmup_steps:
    return initial * step / warmup_steps
  if config.name == "exponential":
    decays = math.floor(step / (config.decay_epochs * steps_per_epoch))
    return initial * config.decay_rate**decays
  end = config.end_learning_rate
  decay_steps = total_steps - warmup_steps + 1
  done = min(max(1, step - warmup_steps), decay_steps) / decay_steps
  return (initial - end) * (1 - done) ** config.power + end


def make_all(config, **run):
  """Return the rates of all steps of a run and the oracle's."""
  steps = range(run["total_steps"] + 3)
  got = jax.vmap(make_schedule(config, **run))(jnp.arange(len(steps)))
  return np.asarray(got), np.array(
    [oracle(config, *run.values(), s) for s in steps]
  )


@pytest.mark.parametrize("name", ["b2-4k", "b2-16k", "b5-16k-lars", "b5-64k"])
def test_every_step_of_the_recipes(name):
  preset = PRESETS[name]
  steps_per_epoch = IMAGENET / preset.batch_size
  config = preset.schedule
  got, want = make_all(
    config,
    batch_size=preset.batch_size,
    steps_per_epoch=steps_per_epoch,
    total_steps=int(preset.epochs * steps_per_epoch),
  )
  if config.name == "exponential":
    # 0.97 in float32 is off by U, so its n-th power by n U. In float32, as in
    # TensorFlow, a step next to a border may fall on its other side. The test
    # leaves out steps within two roundings of a border.
    ratio = np.arange(len(want)) / (config.decay_epochs * steps_per_epoch)
    clear = np.abs(ratio - ratio.round()) > 2 * U * ratio
    assert clear[1:].mean() > 0.9999
    tolerance = (ratio.max() + 8) * U * want
    got, want, tolerance = got[clear], want[clear], tolerance[clear]
  else:
    # Near the end 1 - done is small with an error of 2 U, plus a few roundings.
    tolerance = 8 * U * want.max()
  assert (np.abs(got - want) <= tolerance).all()


def test_borders_of_the_exponential():
  rate = make_schedule(
    ScheduleConfig(name="exponential", lr_per_256=1.0, warmup_epochs=5),
    batch_size=256,
    steps_per_epoch=10.0,
    total_steps=1000,
  )
  # A decay has 24 steps, counted from 0, including a warmup of 50 steps.
  want = {0: 0, 1: 0.02, 49: 0.98, 50: 0.97**2, 71: 0.97**2, 72: 0.97**3}
  for step, value in want.items():
    np.testing.assert_allclose(rate(step), value, rtol=8 * U)


def test_borders_of_the_polynomial():
  rate = make_schedule(
    ScheduleConfig(
      name="polynomial", lr_per_256=1.5, warmup_epochs=1, end_learning_rate=0.5
    ),
    batch_size=256,
    steps_per_epoch=10.9,  # 10 whole steps of warmup
    total_steps=29,  # so 20 steps of decay
  )
  want = {
    0: 0,
    9: 1.35,
    10: 0.5 + 0.95**2,  # counts as one step after warmup
    11: 0.5 + 0.95**2,
    20: 0.75,
    29: 0.5 + 0.05**2,
    30: 0.5,
    99: 0.5,
  }
  for step, value in want.items():
    np.testing.assert_allclose(rate(step), value, rtol=8 * U)


def test_no_warmup_starts_at_the_peak():
  config = ScheduleConfig(lr_per_256=2.0, warmup_epochs=0)
  rate = make_schedule(
    config, batch_size=128, steps_per_epoch=10.0, total_steps=10
  )
  assert rate(0) == 1.0


@pytest.mark.parametrize(
  "name, peak",
  [
    ("b2-16k-lars", 15.10),
    ("b2-32k", 15.10),
    ("b5-64k", 20.74),
    ("b2-4k", 0.256),
  ],
)
def test_peaks_of_the_paper(name, peak):
  preset = PRESETS[name]
  got = peak_learning_rate(preset.schedule, preset.batch_size)
  assert round(got, 3 if peak < 1 else 2) == peak


def test_traced_and_plain_steps_agree_in_float32():
  schedule = make_schedule(
    PRESETS["b2-4k"].schedule,
    batch_size=4096,
    steps_per_epoch=312.78,
    total_steps=1000,
  )
  for step in (0, 7, 2000):
    traced = jax.jit(schedule)(jnp.int32(step))
    assert traced.dtype == schedule(step).dtype == jnp.float32
    np.testing.assert_allclose(traced, schedule(step), rtol=4 * U)


def test_a_rise_after_warmup_is_refused_with_both_rates():
  config = ScheduleConfig(
    name="polynomial", lr_per_256=0.016, end_learning_rate=0.1
  )
  run = dict(steps_per_epoch=10.0, total_steps=100)
  with pytest.raises(UsageError, match=r"from 0\.064 to .* = 0\.1;"):
    make_schedule(config, batch_size=1024, **run)
  make_schedule(config, batch_size=1600, **run)  # equal: constant, not a rise


def test_a_warmup_longer_than_the_run_is_refused():
  config = ScheduleConfig(name="polynomial", lr_per_256=1, warmup_epochs=50)
  run = dict(batch_size=256, steps_per_epoch=10.0)
  with pytest.raises(UsageError, match="500 steps against 499"):
    make_schedule(config, total_steps=499, **run)
  make_schedule(config, total_steps=500, **run)
