"""LARS in float64 NumPy, each variant written from its source."""

import numpy as np


def norm(x):
  return np.linalg.norm(x.ravel())


def lars_step(
  w,
  g,
  v,
  *,
  learning_rate,
  weight_decay,
  trust_coefficient=0.001,
  momentum=0.9,
  epsilon=0.0,
  nesterov=False,
  variant="tensorflow",
  excluded=False,
):
  """Take one step of one tensor; return new weights and momentum buffer."""
  w, g, v = (np.asarray(x, np.float64) for x in (w, g, v))
  step = {"tensorflow": _tensorflow, "optax": _optax, "scaled": _scaled}
  return step[variant](
    w,
    g,
    v,
    learning_rate,
    0.0 if excluded else weight_decay,
    None if excluded else trust_coefficient,
    momentum,
    epsilon,
    nesterov,
  )


def _tensorflow(w, g, v, rate, decay, trust, momentum, epsilon, nesterov):
  """Follow `lars_optimizer.py` of tensorflow/tpu."""
  scaled = rate
  if trust is not None:
    ratio = 1.0
    if norm(w) > 0 and norm(g) > 0:
      ratio = trust * norm(w) / (norm(g) + decay * norm(w) + epsilon)
    scaled = rate * ratio
    g = g + decay * w
  v = momentum * v + g * scaled
  if nesterov:
    return w - (g * scaled + momentum * v), v
  return w - v, v


def _optax(w, g, v, rate, decay, trust, momentum, epsilon, nesterov):
  """Follow `optax.lars`: decay, trust ratio, rate, then `optax.trace`."""
  update = g + decay * w
  if trust is not None:
    ratio = 1.0
    if norm(w) > 0 and norm(update) > 0:
      ratio = trust * norm(w) / (norm(update) + epsilon)
    update = ratio * update
  update = -rate * update
  trace = update + momentum * -v  # optax's buffer has the other sign
  step = update + momentum * trace if nesterov else trace
  return w + step, -trace


def _scaled(w, g, v, rate, decay, trust, momentum, epsilon, nesterov):
  """Follow MLPerf 0.6's reference: the rate scales the whole momentum."""
  ratio = 1.0
  if trust is not None and norm(w) > 0 and norm(g) > 0:
    ratio = trust * norm(w) / (norm(g) + decay * norm(w) + epsilon)
  v = momentum * v + (g + decay * w)
  step = momentum * v + (g + decay * w) if nesterov else v
  return w - rate * ratio * step, v
