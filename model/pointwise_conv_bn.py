"""1x1 convolution and its batch norm, as a module."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from .. import kernels
from ..kernels import Activation
from ..kernels.surface import Layout
from .batch_norm import BatchNorm
from .initial_weights import draw_weights
from .pending import Pending, as_pending, convolve_bn
from .squeeze_excite import SqueezeExcite


class PointwiseConvBN(nnx.Module):
  """1x1 convolution, batch norm and activation.

  The batch norm and the activation of the result are pending, as in
  `DepthwiseConvBN`. With a squeeze-excite, its gate multiplies the input
  between the input's own activation and the convolution.

  Args:
    in_features: Number of channels of the input.
    features: Number of channels of the result.
    activation: Activation after the batch norm, as in `kernels`; or None.
    layout: Order of the axes of an array that is passed in.
    norm: Function from the number of channels to the batch norm.
    rngs: Random numbers for the initial weights.

  Sources: Sandler et al. 2018, arXiv:1801.04381, section 3; Hu et al. 2018,
  arXiv:1709.01507, section 3 (squeeze-excite).

  >>> import jax.numpy as jnp
  >>> expand = PointwiseConvBN(8, 48, activation="silu", rngs=nnx.Rngs(0))
  >>> squeeze_excite = SqueezeExcite(48, 2, rngs=nnx.Rngs(1))
  >>> project = PointwiseConvBN(48, 16, rngs=nnx.Rngs(2))
  >>> wide = expand(jnp.ones((4, 7, 7, 8)))
  >>> project(wide, squeeze_excite).normalised().shape
  (4, 7, 7, 16)
  """

  def __init__(
    self,
    in_features: int,
    features: int,
    *,
    activation: Activation = None,
    layout: Layout = "NHWC",
    norm: Callable[[int], BatchNorm] = BatchNorm,
    rngs: nnx.Rngs,
  ):
    self.kernel = nnx.Param(
      draw_weights(rngs.params(), (in_features, features), features)
    )
    self.norm = norm(features)
    self.activation, self.layout = activation, layout

  def __call__(
    self,
    x: jax.Array | Pending,
    squeeze_excite: SqueezeExcite | None = None,
    *,
    use_running_average: bool | None = None,
  ) -> Pending:
    """Convolve x.

    Args:
      x: Array of `layout`, or the result of another module.
      squeeze_excite: Layer that computes the gate from the spatial means of
        the activated input.
      use_running_average: True for the running statistics; None for the
        batch norm's own choice.

    Raises:
      ValueError: x does not fit the weights.
    """
    x = as_pending(x, self.layout)

    def convolve(kernel: jax.Array, **options: Any):
      options |= {"layout": x.layout, "bands": x.bands}
      if x.is_complete and squeeze_excite is None:
        return kernels.pointwise_conv_bn(x.raw, kernel, **options)
      return kernels.gated_pointwise_conv_bn(
        x.raw,
        kernel,
        x.scale,
        x.offset,
        *_split_gate(squeeze_excite, x.raw.dtype),
        activation=x.activation,
        **options,
      )

    return convolve_bn(
      convolve,
      self.kernel[...],
      self.norm,
      x,
      self.activation,
      use_running_average,
    )


def _split_gate(layer: SqueezeExcite | None, dtype) -> tuple[Any, Any]:
  """Return the gate as a function of its parameters, and the parameters."""
  if layer is None:
    return None, None
  graph, params = nnx.split(layer)
  return (
    lambda params, pooled: nnx.merge(graph, params)(pooled, dtype),
    params,
  )
