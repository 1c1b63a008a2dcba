"""Running batch-norm statistics, made the same on all groups."""

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
  """Merge the running statistics that each group has updated.

  In a step every layer moves its running statistics towards the statistics of
  its own group g, `new_g = momentum * old + (1 - momentum) * batch_g`. After
  the step one call of this function, for all layers together, returns the
  running statistics of the whole batch::

    mean     = momentum * old_mean + (1 - momentum) * avg(batch_mean_g)
    variance = momentum * old_variance + (1 - momentum) * (
        avg(batch_variance_g) + avg((batch_mean_g - avg(batch_mean_g))**2))

  The last term is the variance between the groups. The reference averages only
  the variances of the groups and omits this term, which makes the variance used
  in evaluation too small, the more so the smaller the groups.

  All groups have the same weight. The whole network takes one all-reduce. The
  variance between the groups is summed about the old mean, so its rounding
  error is about `(1 - momentum) * (batch_mean - old_mean)**2 * 2**-23`: large
  means cost accuracy only until the running mean is near them.

  Args:
    means: Pytree of each layer's running means, float32 `[c]`, after the
      step's update with this device's group.
    variances: Pytree of the running variances after the update, of the same
      structure.
    old_means: Pytree of the running means before the update, equal and typed as
      equal on all devices.
    momentum: Weight of the old running statistics in the update, in [0, 1).
    axis_names: Mesh axes to average over. Members of a group hold the same
      values, so the mean over all devices is the mean over the groups.

  Returns:
    `(means, variances)`, equal and typed as equal on all devices.

  Raises:
    ValueError: `momentum` is outside [0, 1).

  >>> from podscale.collectives import group_mesh
  >>> mesh = group_mesh(jax.devices()[:1])
  >>> P = jax.sharding.PartitionSpec
  >>> merge = jax.shard_map(
  ...   lambda mean, variance: merge_running_statistics(
  ...     mean, variance, old_means=jnp.zeros(1), momentum=0.5
  ...   ),
  ...   mesh=mesh,
  ...   in_specs=P(ALL_DEVICES),
  ...   out_specs=P(),
  ... )
  >>> print(*merge(jnp.ones(1), jnp.full(1, 2.0)))  # one group: unchanged
  [1.] [2.]

  Source: the law of total variance; update rule of Ioffe and Szegedy 2015,
  arXiv:1502.03167, section 3.1, with momentum as in Keras.
  """
  if not 0 <= momentum < 1:
    raise ValueError(f"momentum must be in [0, 1), got {momentum}")
  with jax.named_scope("merge_running_statistics"):
    steps = jax.tree.map(jnp.subtract, means, old_means)
    squares = jax.tree.map(jnp.square, steps)
    # One vector, because XLA splits very many arrays into several all-reduces.
    packed, unpack = ravel_pytree((steps, squares, variances))
    packed = lax.pmean(device_varying(packed, axis_names), axis_names)
    steps, squares, variances = unpack(packed)

    def with_between_groups(variance, square, step):
      # A step is (1 - momentum) * (batch_mean - old_mean). The difference is a
      # variance, which rounding alone makes negative.
      between = jnp.maximum(square - step**2, 0)
      return variance + between / (1 - momentum)

    return (
      jax.tree.map(jnp.add, old_means, steps),
      jax.tree.map(with_between_groups, variances, squares, steps),
    )
