"""Inverted-residual block with squeeze-excite."""

from collections.abc import Callable

import jax
from flax import nnx

from .. import kernels
from ..kernels import Moments
from .batch_norm import BatchNorm
from .layers import Depthwise, Pending, Pointwise, SqueezeExcite
from .regularization import ImageRngs, StochasticDepth
from .spec import BlockSpec

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
    if self.has_expand:
      self.expand = Pointwise(spec.in_filters, spec.expanded, rngs=rngs)
      self.expand_norm = norm(spec.expanded)
    self.depthwise = Depthwise(
      spec.expanded, spec.kernel_size, spec.stride, rngs=rngs
    )
    self.depthwise_norm = norm(spec.expanded)
    self.squeeze_excite = SqueezeExcite(spec.expanded, spec.squeezed, rngs=rngs)
    self.project = Pointwise(spec.expanded, spec.out_filters, rngs=rngs)
    self.project_norm = norm(spec.out_filters)
    self.stochastic_depth = StochasticDepth(spec.survival_prob)

  def __call__(
    self,
    x: jax.Array,  # [h, w, n, c]
    pending: Pending | None,
    rngs: ImageRngs,
    bands: int = 1,
    remat: bool = False,
  ) -> jax.Array:
    """Compute the block's result [ho, wo, n, out_filters].

    Args:
      x: Input of the block.
      pending: Scale and offset to apply to x before a swish; None if x is
        complete.
      rngs: Random numbers for stochastic depth.
      bands: Number of bands in x and in the result; see `kernels.to_bands`.
      remat: True to compute the expansion again in the backward pass instead
        of keeping it.
    """
    if pending is not None and (self.has_expand or self.has_skip):
      x = kernels.batch_norm(x, *pending, activation="silu", bands=bands)
      pending = None
    convolve = _convolve_again if remat else Block._convolve
    raw, moments = convolve(self, x, pending, bands)
    scale, offset = self.depthwise_norm.affine(moments)
    raw, moments = self.project.gated(
      raw, scale, offset, self.squeeze_excite, bands
    )
    y = kernels.batch_norm(raw, *self.project_norm.affine(moments), bands=bands)
    return x + self.stochastic_depth(y, rngs) if self.has_skip else y

  def _convolve(self, x, pending, bands) -> tuple[jax.Array, Moments]:
    """Expand x and convolve it depthwise."""
    if self.has_expand:
      x, moments = self.expand(x, bands)
      pending = self.expand_norm.affine(moments)
    return self.depthwise(x, pending, bands)


_convolve_again = nnx.remat(
  Block._convolve,
  static_argnums=3,  # bands
  policy=jax.checkpoint_policies.save_only_these_names(
    "depthwise_conv_bn", "pointwise_conv_bn", "group_moments"
  ),
)
