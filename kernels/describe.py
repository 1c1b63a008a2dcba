"""Description of the implementation that a call of an op would run."""

import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

from .batch_norm import affine
from .batch_norm import api as batch_norm
from .channel_moments import api as channel_moments
from .depthwise_conv import api as depthwise_conv
from .gated_pointwise_conv import api as gated_pointwise_conv
from .lars import api as lars
from .leaf_norms import api as leaf_norms
from .packed.packing import Packing
from .pointwise_conv import api as pointwise_conv
from .selection.selection import Selection

_DESCRIPTIONS: dict[Callable[..., Any], Callable[..., Selection]] = {
  affine.batch_norm_affine: affine.describe,
  batch_norm.batch_norm: batch_norm.describe,
  channel_moments.channel_moments: channel_moments.describe,
  depthwise_conv.depthwise_conv_bn: depthwise_conv.describe,
  gated_pointwise_conv.gated_pointwise_conv_bn: gated_pointwise_conv.describe,
  lars.lars_update: lars.describe,
  leaf_norms.leaf_norms: leaf_norms.describe,
  Packing.pack: Packing.describe_pack,
  pointwise_conv.pointwise_conv_bn: pointwise_conv.describe,
}


def describe(op: Callable[..., Any], *args: Any, **settings: Any) -> Selection:
  """Describe which implementation a call of `op` runs, without running it.

  The answer holds for a call here: with the same `default_implementation`,
  default device and mesh.

  Args:
    op: Public op, or the `pack` of a `Packing`.
    *args: Arguments of the op; `jax.ShapeDtypeStruct`s may replace arrays.
    **settings: Keyword arguments of the op, `implementation` included.

  Returns:
    The `Selection`: implementation, chip, reason and block sizes.

  Raises:
    ValueError: `op` is not one of the ops, or the op raises it for such
      arguments.
    TypeError: The op has no such parameters.
    NotImplementedError: The requested implementation cannot run.

  >>> import jax, jax.numpy as jnp
  >>> from podscale import kernels
  >>> x = jax.ShapeDtypeStruct((56, 56, 64, 144), jnp.bfloat16)
  >>> filters = jax.ShapeDtypeStruct((3, 3, 144), jnp.bfloat16)
  >>> selection = describe(kernels.depthwise_conv_bn, x, filters)
  >>> selection.implementation, selection.reason
  ('xla', 'JAX compiles for no TPU')
  """
  if isinstance(op, MethodType):
    args = (op.__self__, *args)
    op = op.__func__
  if op not in _DESCRIPTIONS:
    raise ValueError(
      f"describe: {op!r} is not an op of podscale.kernels; expected one of "
      f"{', '.join(known.__name__ for known in _DESCRIPTIONS)}"
    )
  try:
    call = inspect.signature(op).bind(*args, **settings)
  except TypeError as error:
    raise TypeError(f"describe({op.__name__}): {error}") from None
  call.apply_defaults()
  return _DESCRIPTIONS[op](**call.arguments)
