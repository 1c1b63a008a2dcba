"""The learning rate over time: linear warmup, then a decay.

The rules, their constants and their way of counting are those of
`build_learning_rate` in `models/official/efficientnet/utils.py` of
tensorflow/tpu, in float32 as there.
"""

import jax.numpy as jnp
import optax

from .errors import UsageError
from .settings.config import ScheduleConfig


def peak_learning_rate(config: ScheduleConfig, batch_size: int) -> float:
  """The rate at the end of warmup, linear in the batch.

  >>> peak_learning_rate(ScheduleConfig(lr_per_256=0.016), batch_size=4096)
  0.256
  """
  return config.lr_per_256 * batch_size / 256


def make_schedule(
  config: ScheduleConfig,
  *,
  batch_size: int,
  steps_per_epoch: float,
  total_steps: int,
) -> optax.Schedule:
  """The learning rate as a function of the step.

  With `w = int(warmup_epochs * steps_per_epoch)`, step `s` has the rate

      peak * s / w                                                while s < w
      peak * decay_rate ** floor(s / (decay_epochs * steps_per_epoch))
      end + (peak - end) * (1 - max(1, s - w) / (total_steps - w + 1)) ** power

  the second line for "exponential", which counts from step 0, so that warmup
  of 5 epochs ends in a drop to `decay_rate ** 2`; the third for "polynomial",
  which counts from the end of warmup and stays at `end` after `total_steps`.

  Args:
    config: the settings.
    batch_size: images per step, over all devices.
    steps_per_epoch: training images divided by `batch_size`; not rounded.
    total_steps: steps of the whole run.

  Returns:
    A function from the step, an integer from 0, traced or not, to the rate of
    that step's update, a float32 scalar.

  Raises:
    UsageError: polynomial, where the rate would rise after warmup or warmup is
      longer than the run.

  >>> rate = make_schedule(
  ...   ScheduleConfig(warmup_epochs=2),
  ...   batch_size=4096,
  ...   steps_per_epoch=100,
  ...   total_steps=1000,
  ... )
  >>> print(*(rate(step) for step in (0, 50, 100, 200)))
  0.0 0.064 0.128 0.256
  """
  peak = peak_learning_rate(config, batch_size)
  warmup_steps = int(config.warmup_epochs * steps_per_epoch)
  if config.name == "exponential":
    decayed = optax.exponential_decay(
      peak,
      # Not a whole number; nor is TensorFlow's.
      transition_steps=config.decay_epochs * steps_per_epoch,
      decay_rate=config.decay_rate,
      staircase=True,
    )
  else:
    decayed = _polynomial(config, peak, warmup_steps, total_steps)

  def schedule(step):
    step = jnp.asarray(step, jnp.float32)  # exact up to 16.7 million
    warmup = peak * step / max(1, warmup_steps)
    rate = jnp.where(step < warmup_steps, warmup, decayed(step))
    return rate.astype(jnp.float32)

  return schedule


def _polynomial(
  config: ScheduleConfig, peak: float, warmup_steps: int, total_steps: int
) -> optax.Schedule:
  if config.end_learning_rate > peak:
    raise UsageError(
      f"the learning rate would rise after warmup, from {peak:g} to "
      f"schedule.end_learning_rate = {config.end_learning_rate:g}; "
      "lower that, or raise schedule.lr_per_256 or the batch"
    )
  if warmup_steps > total_steps:
    raise UsageError(
      f"warmup is longer than the run: {warmup_steps} steps against "
      f"{total_steps}; lower schedule.warmup_epochs or raise epochs"
    )
  decay = optax.polynomial_schedule(
    peak,
    config.end_learning_rate,
    power=config.power,
    transition_steps=total_steps - warmup_steps + 1,
  )
  return lambda step: decay(jnp.maximum(1, step - warmup_steps))
