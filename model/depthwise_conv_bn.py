"""Depthwise convolution and its batch norm, as a module."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from .. import kernels
from ..kernels import Activation
from ..kernels.surface import Layout, Padding
from .batch_norm import BatchNorm
from .initial_weights import draw_weights
from .pending import Pending, as_pending, convolve_bn


class DepthwiseConvBN(nnx.Module):
  """Depthwise convolution, batch norm and activation.

  The batch norm and the activation of the result are pending: the next module
  applies them as it reads the result, or `Pending.normalised` does. By running
  statistics, the batch norm is folded into the filters.

  Args:
    features: Number of channels.
    kernel_size: Height and width of the filters, or one number for both.
    stride: 1 or 2, or a pair of them for rows and columns.
    padding: Padding of `kernels.depthwise_conv_bn`; PyTorch's is
      `kernel_size // 2`.
    dilation: Inputs from one tap to the next, or a pair.
    activation: Activation after the batch norm, as in `kernels`; or None.
    layout: Order of the axes of an array that is passed in.
    norm: Function from the number of channels to the batch norm.
    rngs: Random numbers for the initial filters.

  Source: Howard et al. 2017, arXiv:1704.04861, section 3.1.

  >>> import jax.numpy as jnp
  >>> layer = DepthwiseConvBN(8, 3, stride=2, activation="relu6",
  ...                         rngs=nnx.Rngs(0))
  >>> layer(jnp.ones((4, 7, 7, 8))).normalised().shape
  (4, 4, 4, 8)
  """

  def __init__(
    self,
    features: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, int] = 1,
    activation: Activation = None,
    layout: Layout = "NHWC",
    norm: Callable[[int], BatchNorm] = BatchNorm,
    rngs: nnx.Rngs,
  ):
    if isinstance(kernel_size, int):
      kernel_size = kernel_size, kernel_size
    height, width = kernel_size
    # TensorFlow's fan-out of a depthwise filter is its number of taps.
    self.filters = nnx.Param(
      draw_weights(rngs.params(), (height, width, features), height * width)
    )
    self.norm = norm(features)
    self.stride, self.padding, self.dilation = stride, padding, dilation
    self.activation, self.layout = activation, layout

  def __call__(
    self, x: jax.Array | Pending, *, use_running_average: bool | None = None
  ) -> Pending:
    """Convolve x.

    Args:
      x: Array of `layout`, or the result of another module.
      use_running_average: True for the running statistics; None for the
        batch norm's own choice.

    Raises:
      ValueError: x does not fit the filters.
    """
    x = as_pending(x, self.layout)

    def convolve(filters: jax.Array, **options: Any):
      return kernels.depthwise_conv_bn(
        x.raw,
        filters,
        x.scale,
        x.offset,
        activation=x.activation,
        stride=self.stride,
        padding=self.padding,
        dilation=self.dilation,
        layout=x.layout,
        bands=x.bands,
        **options,
      )

    return convolve_bn(
      convolve,
      self.filters[...],
      self.norm,
      x,
      self.activation,
      use_running_average,
    )
