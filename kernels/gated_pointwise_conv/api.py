"""The public 1x1 convolution behind a squeeze-excite."""

from typing import Any

import jax

from ..channel_moments.api import channel_moments
from ..common.activation import Activation, check_activation
from ..common.layout import check_image
from ..common.manual_axes import match_varying
from ..common.moments import Moments
from ..pointwise_conv.api import check_weights
from ..selection.requested import Requested
from ..selection.selection import Selection, select
from .selection import POLICY
from .settings import Gate, Settings
from .vjp import OP, gated


def gated_pointwise_conv_bn(
  x: jax.Array,
  kernel: jax.Array,
  scale: jax.Array,
  offset: jax.Array,
  gate: Gate,
  gate_params: Any,
  *,
  activation: Activation = None,
  bands: int = 1,
  implementation: Requested = None,
) -> tuple[jax.Array, Moments]:
  """1x1 convolution, with batch norm, activation and gate on its way in.

  Equivalent to::

      z = activation(x * scale + offset)
      g = gate(gate_params, z.mean((0, 1)))
      y = (z.astype(x.dtype) * g) @ kernel
      return y, channel_moments(y)

  Args:
    x: `[h, w, n, c]`, floating.
    kernel: `[c, d]`, of x's dtype.
    scale: `[c]` float32, from `batch_norm_affine`.
    offset: `[c]` float32.
    gate: A function of `gate_params` and the spatial mean, float32 `[n, c]`, to
      a factor for each image and channel, `[n, c]` of x's dtype.
    gate_params: Arrays, in any structure.
    activation: 'silu', 'relu' or None.
    bands: Of the image, among x's channels, as `to_bands` lays them; y's are
      laid likewise.
    implementation: 'xla', 'pallas_tpu', several to try, or None to choose. The
      kernel is one for the backward pass.

  Returns:
    y, `[h, w, n, d]`, of x's dtype, and its `Moments`. For policies of
    `jax.checkpoint` y has the name of this function.

  Raises:
    ValueError: shapes, dtypes or settings that do not fit each other.
    NotImplementedError: the named implementation cannot do this.

  Source: squeeze-excite is Hu et al. 2018.

  >>> import jax.numpy as jnp
  >>> x, ones = jnp.ones((2, 2, 1, 3)), jnp.ones(3)
  >>> gate = lambda half, mean: half * mean
  >>> y, _ = gated_pointwise_conv_bn(x, jnp.ones((3, 2)), ones, ones, gate, 0.5)
  >>> y.shape, y[0, 0, 0, 0].item()
  ((2, 2, 1, 2), 6.0)
  """
  selection = describe(
    x, kernel, scale, offset, activation, bands, implementation
  )
  leaves, structure = jax.tree.flatten(gate_params)
  x, kernel, scale, offset, *leaves = match_varying(
    x, kernel, scale, offset, *leaves
  )
  gate_params = jax.tree.unflatten(structure, leaves)
  settings = Settings(gate, activation, bands, selection)
  with jax.named_scope(OP):
    y = gated(x, kernel, scale, offset, gate_params, settings)
    return y, channel_moments(y, bands=bands)


def describe(
  x: jax.Array,
  kernel: jax.Array,
  scale: jax.Array,
  offset: jax.Array,
  activation: Activation,
  bands: int,
  implementation: Requested,
  **_: Any,
) -> Selection:
  """Check the arguments and select the implementation."""
  check_image(OP, x, "HWNC", bands, scale=scale, offset=offset)
  check_activation(OP, activation)
  check_weights(OP, x, kernel, bands)
  return select(POLICY, implementation, x, kernel, bands)
