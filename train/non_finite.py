"""Error text for a step whose loss or gradient is not finite."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jax.tree_util import KeyPath, keystr

_MOST_NAMED = 5  # tensors in a message
_MOST_NORMS = 3


def describe_non_finite(
  metrics: Sequence[Mapping[str, np.ndarray]],
  first_step: int,
  leaves: Sequence[KeyPath],
) -> str:
  """Describe the first step whose loss or gradient is not finite.

  Args:
    metrics: Metrics of consecutive steps, as `make_train_step` defines them.
    first_step: Number of the first of these steps, counted from 1.
    leaves: Key paths of the parameters, in the order of the gradient norms.

  Returns:
    Step, loss, norms and the tensors concerned; "" if all steps are finite.
  """
  for step, values in enumerate(metrics, first_step):
    scalars = ("loss", "gradient_norm", "learning_rate")
    if all(math.isfinite(values[name]) for name in scalars):
      continue
    norms = values["leaf_gradient_norms"]
    return (
      f"step {step} is not finite (loss {values['loss']:g}, gradient norm "
      f"{values['gradient_norm']:g}, learning rate "
      f"{values['learning_rate']:g}{_not_finite(norms, leaves)}"
      f"{_largest(norms, leaves)})"
    )
  return ""


def _not_finite(norms: np.ndarray, leaves: Sequence[KeyPath]) -> str:
  """Name the tensors whose gradients are not finite."""
  bad = np.flatnonzero(~np.isfinite(norms)).tolist()
  names = [_name(leaves[i]) for i in bad]
  if not names:
    return ""
  if len(names) == len(leaves):
    return ", in every tensor"
  more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
  return f", not finite in {', '.join(names[:_MOST_NAMED])}{more}"


def _largest(norms: np.ndarray, leaves: Sequence[KeyPath]) -> str:
  """Name the tensors with the largest finite gradient norms."""
  order = np.argsort(np.where(np.isfinite(norms), -norms, np.inf))
  named = [
    f"{_name(leaves[i])} {norms[i]:.3g}"
    for i in order[:_MOST_NORMS].tolist()
    if np.isfinite(norms[i])
  ]
  return f", largest norms {', '.join(named)}" if named else ""


def _name(leaf: KeyPath) -> str:
  return keystr(leaf, simple=True, separator=".")
