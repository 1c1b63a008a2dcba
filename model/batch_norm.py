"""Batch norm over a group of devices."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .. import kernels
from ..collectives import group_moments
from ..kernels import Moments
from ..kernels.surface import Layout


class BatchNorm(nnx.Module):
  """Batch norm that shares its statistics within a group of devices.

  Training normalises by the statistics of this step's images over all devices
  of `axis_name`, and updates the running statistics:
  `running = momentum * running + (1 - momentum) * batch`, with the biased
  variance. Each group updates from its own images, so the running statistics of
  the groups differ. Call `collectives.merge_running_statistics` once a step to
  make them equal; it also adds the variance between the groups' means, which
  TensorFlow's reference omits.

  `affine` returns the scale and offset without applying them, for an op that
  applies them to its input.

  Args:
    features: Number of channels.
    momentum: Weight of the old running statistics.
    epsilon: Constant added to the variance.
    axis_name: Mesh axis of the group inside `jax.shard_map`; None for this
      device alone.
    use_running_average: True to normalise by the running statistics;
      `train()` and `eval()` of an enclosing module set it, as `nnx.view` does.
    dtype: Dtype of the result of a call; None for the input's.
    rngs: Accepted as `flax.nnx.BatchNorm` does; nothing is drawn.

  The variables have the names of `flax.nnx.BatchNorm`, so the state of one can
  be loaded into the other.

  Source: arXiv:2011.00071, section 3.4; momentum and epsilon as in TensorFlow's
  EfficientNet.

  >>> norm = BatchNorm(8)
  >>> norm(jnp.ones((4, 7, 7, 8))).shape
  (4, 7, 7, 8)
  """

  def __init__(
    self,
    features: int,
    *,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    axis_name: str | tuple[str, ...] | None = None,
    use_running_average: bool = False,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs | None = None,
  ):
    del rngs
    self.scale = nnx.Param(jnp.ones(features, jnp.float32))
    self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
    self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
    self.var = nnx.BatchStat(jnp.ones(features, jnp.float32))
    self.momentum = momentum
    self.epsilon = epsilon
    self.axis_name = axis_name
    self.use_running_average = use_running_average
    self.dtype = dtype

  def averages(self, use_running_average: bool | None = None) -> bool:
    """Tell if a call normalises by the running statistics.

    Args:
      use_running_average: Choice of the call; None takes the module's.
    """
    if use_running_average is None:
      return self.use_running_average
    return use_running_average

  def running_affine(self) -> tuple[jax.Array, jax.Array]:
    """Compute the scale and offset by the running statistics.

    Returns:
      Scale and offset, float32 `[c]` each.
    """
    one = jnp.float32(1)
    return self._affine(Moments(one, self.mean[...], self.var[...]))

  def affine(
    self, moments: Moments, use_running_average: bool | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Compute the scale and offset to apply, float32 `[c]` each.

    Training updates the running statistics; evaluation ignores `moments`.

    Args:
      moments: Moments of the tensor to normalise, over this device's images.
      use_running_average: True for the running statistics; None for the
        batch norm's own choice.
    """
    if self.averages(use_running_average):
      return self.running_affine()
    if self.axis_name is not None:
      moments = group_moments(moments, self.axis_name, pivot=self.mean[...])
    # Call _affine first, because it checks the shapes.
    affine = self._affine(moments)
    self._update(jax.lax.stop_gradient(moments))
    return affine

  def __call__(
    self,
    x: jax.Array,
    use_running_average: bool | None = None,
    *,
    activation: kernels.Activation = None,
  ) -> jax.Array:
    """Normalise `x` `[..., c]`, then apply the activation.

    Args:
      x: Array whose last axis holds the channels.
      use_running_average: True to normalise by the running statistics, False
        to normalise by x and update them; None takes the module's choice.
      activation: Activation after the batch norm, as in `kernels`; or None.

    Returns:
      Array of x's shape, and of x's dtype or the module's.

    Raises:
      ValueError: The number of channels or the dtype does not fit.
    """
    # A matrix becomes a batch, along which CPUs sum in blocks.
    image = x if x.ndim == 4 else x.reshape(1, 1, -1, x.shape[-1])
    if self.dtype is not None:
      image = image.astype(self.dtype)
    layout = _layout(image)
    if self.averages(use_running_average):
      scale, offset = self.running_affine()
    else:
      moments = kernels.channel_moments(image, layout=layout)
      scale, offset = self.affine(moments, use_running_average=False)
    y = kernels.batch_norm(
      image, scale, offset, activation=activation, layout=layout
    )
    return y.reshape(x.shape)

  def set_view(self, use_running_average: bool | None = None) -> None:
    """Set the choice of a view; `nnx.view` calls it."""
    if use_running_average is not None:
      self.use_running_average = use_running_average

  def _affine(self, moments):
    return kernels.batch_norm_affine(
      moments, self.scale[...], self.bias[...], epsilon=self.epsilon
    )

  def _update(self, moments):
    keep, take = self.momentum, 1 - self.momentum
    variance = moments.m2 / moments.count
    self.mean[...] = keep * self.mean[...] + take * moments.mean
    self.var[...] = keep * self.var[...] + take * variance


def _layout(x: jax.Array) -> Layout:
  """Return a layout whose channels come last, for ops on every element.

  The order of the other axes does not matter, and HWNC takes no transposes. The
  ops need the true layout where a batch is split over an explicit mesh.
  """
  return "HWNC" if jax.typeof(x).sharding.spec[0] is None else "NHWC"
