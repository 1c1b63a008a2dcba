"""Inverted-residual block, with or without squeeze-excite."""

from collections.abc import Callable
from functools import partial

import jax
from flax import nnx

from .batch_norm import BatchNorm
from .depthwise_conv_bn import DepthwiseConvBN
from .pending import Pending
from .pointwise_conv_bn import PointwiseConvBN
from .regularization import ImageRngs, StochasticDepth
from .spec import BlockSpec
from .squeeze_excite import SqueezeExcite

Norm = Callable[[int], BatchNorm]


class Block(nnx.Module):
  """Inverted-residual block: expand, depthwise, squeeze-excite, project, add.

  Sources: Sandler et al. 2018, arXiv:1801.04381, section 3 (inverted
  residuals); Hu et al. 2018, arXiv:1709.01507, section 3 (squeeze-excite).

  Args:
    spec: Sizes of the block.
    norm: Function from a number of channels to a batch norm.
    rngs: Random numbers for the initial weights.
  """

  def __init__(self, spec: BlockSpec, *, norm: Norm, rngs: nnx.Rngs):
    self.spec = spec
    self.has_expand = spec.expanded != spec.in_filters
    self.has_skip = spec.stride == 1 and spec.in_filters == spec.out_filters
    pointwise = partial(PointwiseConvBN, layout="HWNC", norm=norm, rngs=rngs)
    if self.has_expand:
      self.expand = pointwise(
        spec.in_filters, spec.expanded, activation=spec.activation
      )
    self.depthwise = DepthwiseConvBN(
      spec.expanded,
      spec.kernel_size,
      stride=spec.stride,
      activation=spec.activation,
      layout="HWNC",
      norm=norm,
      rngs=rngs,
    )
    if spec.squeezed:
      self.squeeze_excite = SqueezeExcite(
        spec.expanded, spec.squeezed, rngs=rngs
      )
    self.project = pointwise(spec.expanded, spec.out_filters)
    self.stochastic_depth = StochasticDepth(spec.survival_prob)

  def __call__(
    self, x: Pending, rngs: ImageRngs, remat: bool = False
  ) -> Pending:
    """Compute the block's result, `[ho, wo, n, out_filters]`.

    Args:
      x: Input of the block, `[h, w, n, in_filters]`.
      rngs: Random numbers for stochastic depth.
      remat: True to compute the expansion again in the backward pass instead
        of keeping it.
    """
    if self.has_expand or self.has_skip:
      x = Pending(x.normalised(), layout=x.layout, bands=x.bands)
    convolve = _convolve_again if remat else Block._convolve
    y = self.project(convolve(self, x), getattr(self, "squeeze_excite", None))
    result = y.normalised()
    if self.has_skip:
      result = x.raw + self.stochastic_depth(result, rngs)
    return Pending(result, layout=x.layout, bands=x.bands)

  def _convolve(self, x: Pending) -> Pending:
    """Expand x and convolve it depthwise."""
    return self.depthwise(self.expand(x) if self.has_expand else x)


_convolve_again = nnx.remat(
  Block._convolve,
  policy=jax.checkpoint_policies.save_only_these_names(
    "depthwise_conv_bn", "pointwise_conv_bn", "group_moments"
  ),
)
