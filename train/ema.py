"""An average over the training steps, for evaluation.

It runs over the parameters and over batch norm's running statistics alike, as
in TensorFlow's EfficientNet, where evaluation uses both averages.
"""

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def init_ema(values: PyTree) -> PyTree:
  """The average before the first step: a float32 copy of `values`.

  It is a copy, and not the same buffers, so that a step may be given both to
  overwrite.
  """
  return jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), values)


def update_ema(
  average: PyTree,
  values: PyTree,
  *,
  num_updates: jax.Array | int,
  max_decay: float,
) -> PyTree:
  """One step of the average, over about the last tenth of the steps so far.

      decay   = min(max_decay, (1 + n) / (10 + n))
      average = decay * average + (1 - decay) * values

  The ramp matters where steps are few: over the 6,842 steps of 350 epochs at
  batch 65,536, a constant decay of 0.9999 would leave half of the initial
  weights in the average. With it the average's mean age is a tenth of the steps
  taken, until `max_decay` is reached: 0.9999 after some 90,000 steps.

  Args:
    average: float32 tree, from `init_ema` or the last step.
    values: tree of the same structure and shapes, as they are after this step.
    num_updates: `n`, the number of parameter updates done, this step's
      included: 1 at the first. TensorFlow reads its step counter after the
      optimizer has counted (`ema.apply` under a dependency on the train op).
    max_decay: the largest decay.

  Returns:
    The new average, float32.

  >>> average = init_ema({"kernel": jnp.array([0.0, 11.0])})
  >>> values = {"kernel": jnp.array([11.0, 0.0])}
  >>> update_ema(average, values, num_updates=1, max_decay=0.9999)
  {'kernel': Array([9., 2.], dtype=float32)}

  Source: `tf.train.ExponentialMovingAverage(0.9999, num_updates=global_step)`
  in `models/official/efficientnet/main.py` of tensorflow/tpu.
  """
  n = jnp.asarray(num_updates, jnp.float32)
  # 1 - decay, without the digits that subtracting from 1 would lose.
  share = jnp.maximum(1 - max_decay, 9 / (10 + n))
  with jax.named_scope("update_ema"):
    return jax.tree.map(
      lambda a, x: a + share * (x.astype(jnp.float32) - a), average, values
    )
