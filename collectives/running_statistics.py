"""Running batch-norm statistics that are the same on all groups."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from .mesh import ALL_DEVICES
from .varying import device_varying


def merge_running_statistics[Tree](
  means: Tree,
  variances: Tree,
  *,
  old_means: Tree,
  momentum: float,
  axis_names: str | Sequence[str] = ALL_DEVICES,
) -> tuple[Tree, Tree]:
  """Makes one set of running statistics of those each group has updated.

  In a step every layer moves its running statistics towards those of its own
  group g, `new_g = momentum * old + (1 - momentum) * batch_g`. After the step
  one call of this, for all layers together, gives what the moments of the
  whole batch would have given::

    mean     = momentum * old_mean + (1 - momentum) * avg(batch_mean_g)
    variance = momentum * old_variance + (1 - momentum) * (
        avg(batch_variance_g) + avg((batch_mean_g - avg(batch_mean_g))**2))

  The last term is the variance between the groups. The reference averages the
  groups' variances only and leaves it out, which makes the variance used in
  evaluation too small, the more so the smaller the groups.

  Groups weigh the same. One all-reduce over the whole network. The variance
  between the groups is summed about the old mean, so its rounding error is
  `(1 - momentum) * (batch_mean - old_mean)**2 * 2**-23` or so: large means
  cost accuracy only until the running mean has come near them.

  Args:
    means: pytree of each layer's running means, float32 `[c]`, after the
      step's update with this device's group.
    variances: pytree of the same structure, the variances after the update.
    old_means: the means before the update, equal (and typed as equal) on all
      devices.
    momentum: share of the old value that the update kept, in [0, 1).
    axis_names: the mesh axes to average over; members of a group hold the same
      values, so all devices give the same as the groups alone.

  Returns:
    `(means, variances)`, equal and typed as equal on all devices.

  Raises:
    ValueError: `momentum` is outside [0, 1).

  Source: the law of total variance; formula of the update as in Ioffe and
  Szegedy 2015, arXiv:1502.03167, section 3.1, with Keras' momentum.
  """
  if not 0 <= momentum < 1:
    raise ValueError(f"momentum must be in [0, 1), got {momentum}")
  with jax.named_scope("merge_running_statistics"):
    steps = jax.tree.map(jnp.subtract, means, old_means)
    squares = jax.tree.map(jnp.square, steps)
    # As one vector: XLA makes several all-reduces of very many arrays.
    packed, unpack = ravel_pytree((steps, squares, variances))
    packed = lax.pmean(device_varying(packed, axis_names), axis_names)
    steps, squares, variances = unpack(packed)

    def with_between_groups(variance, square, step):
      # A step is (1 - momentum) * (batch_mean - old_mean). The difference is
      # a variance, so what lies below 0 is rounding.
      between = jnp.maximum(square - step**2, 0)
      return variance + between / (1 - momentum)

    return (
      jax.tree.map(jnp.add, old_means, steps),
      jax.tree.map(with_between_groups, variances, squares, steps),
    )
