"""Exponential moving average over the training steps, for evaluation.

It covers the parameters and batch norm's running statistics, as in TensorFlow's
EfficientNet, whose evaluation uses both averages.
"""

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def init_ema(values: PyTree) -> PyTree:
  """Make the average before the first step, a float32 copy of `values`.

  A step overwrites the buffers of both, so they must not share any.

  Args:
    values: Tree of arrays.
  """
  return jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), values)


def update_ema(
  average: PyTree,
  values: PyTree,
  *,
  num_updates: jax.Array | int,
  max_decay: float,
) -> PyTree:
  """Update the average, which spans about the last tenth of the steps so far.

      decay   = min(max_decay, (1 + n) / (10 + n))
      average = decay * average + (1 - decay) * values

  The ramp matters for short runs: over the 6,842 steps of 350 epochs at batch
  65,536, a constant decay of 0.9999 would keep half of the initial weights in
  the average. With the ramp, the mean age of the averaged values is a tenth of
  the steps done, until the decay reaches `max_decay`, 0.9999 after about 90,000
  steps.

  Args:
    average: Average before this step, a float32 tree.
    values: Values after this step, a tree of the same structure and shapes.
    num_updates: Number `n` of parameter updates done, including this step's, so
      1 at the first step. TensorFlow reads its step counter after the optimizer
      has incremented it (`ema.apply` depends on the train op).
    max_decay: Largest decay.

  Returns:
    The new average, a float32 tree.

  >>> average = init_ema({"kernel": jnp.array([0.0, 11.0])})
  >>> values = {"kernel": jnp.array([11.0, 0.0])}
  >>> update_ema(average, values, num_updates=1, max_decay=0.9999)
  {'kernel': Array([9., 2.], dtype=float32)}

  Source: `tf.train.ExponentialMovingAverage(0.9999, num_updates=global_step)`
  in `models/official/efficientnet/main.py` of tensorflow/tpu.
  """
  n = jnp.asarray(num_updates, jnp.float32)
  # This is 1 - decay; subtracting the decay from 1 would lose digits.
  share = jnp.maximum(1 - max_decay, 9 / (10 + n))
  with jax.named_scope("update_ema"):
    return jax.tree.map(
      lambda a, x: a + share * (x.astype(jnp.float32) - a), average, values
    )
