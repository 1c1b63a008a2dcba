"""Learning rate over time: a linear warmup, then a decay.

Rules, constants, step counting and float32 arithmetic follow
`build_learning_rate` in `models/official/efficientnet/utils.py` of
tensorflow/tpu.
"""

import jax.numpy as jnp
import optax

from .errors import UsageError
from .settings.config import ScheduleConfig


def peak_learning_rate(config: ScheduleConfig, batch_size: int) -> float:
  """Compute the rate at the end of warmup, linear in the batch size.

  Args:
    config: Settings of the schedule.
    batch_size: Images per step, over all devices.

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
  """Make the learning rate's function of the step.

  With `w = int(warmup_epochs * steps_per_epoch)`, the rate of step `s` is

      peak * s / w                                                while s < w
      peak * decay_rate ** floor(s / (decay_epochs * steps_per_epoch))
      end + (peak - end) * (1 - max(1, s - w) / (total_steps - w + 1)) ** power

  The second line is "exponential". It counts from step 0, so a warmup of 5
  epochs ends with a drop to `decay_rate ** 2`. The third line is "polynomial".
  It counts from the end of warmup and stays at `end` after `total_steps`.

  Args:
    config: Settings of the schedule.
    batch_size: Images per step, over all devices.
    steps_per_epoch: Training images divided by `batch_size`, not rounded.
    total_steps: Number of training steps.

  Returns:
    A function from the step, a concrete or traced integer from 0, to the rate
    of that step's update, a float32 scalar.

  Raises:
    UsageError: A polynomial rate would rise after warmup, or warmup is longer
      than the run.

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
      # TensorFlow does not round this number either.
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
