"""A convolution's result whose batch norm and activation are pending."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from .. import kernels
from ..kernels import Activation
from ..kernels.surface import Layout
from .batch_norm import BatchNorm

# Function of the weights; it returns y, and the moments unless moments=False.
Convolve = Callable[..., Any]


@partial(
  jax.tree_util.register_dataclass,
  data_fields=["raw", "scale", "offset"],
  meta_fields=["activation", "layout", "bands"],
)
@dataclass(frozen=True)
class Pending:
  """Raw result of a convolution, with the batch norm to apply to it.

  The next op applies `activation(raw * scale + offset)` as it reads `raw`, so
  the normalised array is never written to memory.

  Attributes:
    raw: Raw result, `[n, h, w, c]`, or of another layout.
    scale: Scale of the batch norm, float32 `[c]`; None for ones.
    offset: Offset of the batch norm, float32 `[c]`; None for zeros.
    activation: Activation after scale and offset.
    layout: Order of the axes of `raw`.
    bands: Number of bands of `raw`; see `kernels.to_bands`.

  >>> import jax.numpy as jnp
  >>> raw = jnp.ones((1, 2, 2, 8))
  >>> pending = Pending(raw, offset=jnp.full(8, 9.0), activation="relu6")
  >>> pending.normalised()[0, 0, 0, 0].item(), pending.pooled().shape
  (6.0, (1, 8))
  """

  raw: jax.Array
  scale: jax.Array | None = None
  offset: jax.Array | None = None
  activation: Activation = None
  layout: Layout = "NHWC"
  bands: int = 1

  @property
  def is_complete(self) -> bool:
    """True if nothing is left to apply to `raw`."""
    return self.scale is self.offset is self.activation is None

  def normalised(self) -> jax.Array:
    """Apply batch norm and activation; the result has raw's shape and dtype."""
    return self.raw if self.is_complete else self._apply()

  def pooled(self) -> jax.Array:
    """Compute the spatial mean of `normalised()`, float32 `[n, c]`."""
    return self._apply(pool=True)[1]

  def _apply(self, **options):
    return kernels.batch_norm(
      self.raw,
      self.scale,
      self.offset,
      activation=self.activation,
      layout=self.layout,
      bands=self.bands,
      **options,
    )


def as_pending(x: jax.Array | Pending, layout: Layout) -> Pending:
  """Wrap an array of `layout`; return a `Pending` as it is."""
  return x if isinstance(x, Pending) else Pending(x, layout=layout)


def convolve_bn(
  convolve: Convolve,
  weights: jax.Array,
  norm: BatchNorm,
  x: Pending,
  activation: Activation,
  use_running_average: bool | None = None,
) -> Pending:
  """Convolve x, and leave the result's batch norm pending.

  By running statistics, the batch norm's scale is folded into the weights, and
  no moments are computed.

  Args:
    convolve: Function of the weights and `moments=` that convolves x: an op.
    weights: Weights, float32 `[..., c]`.
    norm: Batch norm of the result.
    x: Input.
    activation: Activation after the batch norm.
    use_running_average: True for the running statistics; None for the batch
      norm's own choice.
  """
  dtype, scale = x.raw.dtype, None
  if norm.averages(use_running_average):
    scale, offset = norm.running_affine()
    # The weights end in the output's channels.
    folded = weights * scale.reshape((1,) * (weights.ndim - 1) + (-1,))
    raw, scale = convolve(folded.astype(dtype), moments=False), None
  else:
    raw, moments = convolve(weights.astype(dtype))
    scale, offset = norm.affine(moments, use_running_average)
  return Pending(raw, scale, offset, activation, x.layout, x.bands)
