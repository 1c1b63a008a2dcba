"""LARS in float64 NumPy, written from tensorflow/tpu's lars_optimizer.py."""

import numpy as np


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
  excluded=False,
):
  """One step of one tensor; returns the new weights and momentum buffer."""
  w, g, v = (np.asarray(x, np.float64) for x in (w, g, v))
  scaled = learning_rate
  if not excluded:
    w_norm = np.linalg.norm(w.ravel())
    g_norm = np.linalg.norm(g.ravel())
    ratio = 1.0
    if w_norm > 0 and g_norm > 0:
      ratio = (
        trust_coefficient * w_norm / (g_norm + weight_decay * w_norm + epsilon)
      )
    scaled = learning_rate * ratio
    g = g + weight_decay * w
  v = momentum * v + g * scaled
  if nesterov:
    return w - (g * scaled + momentum * v), v
  return w - v, v
