"""What would run, without running it."""

from collections.abc import Callable
from typing import Any

from .depthwise_conv import api as depthwise_conv
from .gated_pointwise_conv import api as gated_pointwise_conv
from .lars import lars_update
from .leaf_norms import leaf_norms
from .leaf_norms import selection as automatic
from .pointwise_conv import api as pointwise_conv
from .selection.selection import Choice
from .tpu.chip import target_chip

_DESCRIPTIONS: dict[Callable[..., Any], Callable[..., Choice]] = {
  depthwise_conv.depthwise_conv_bn: depthwise_conv.describe,
  gated_pointwise_conv.gated_pointwise_conv_bn: gated_pointwise_conv.describe,
  pointwise_conv.pointwise_conv_bn: pointwise_conv.describe,
  lars_update: automatic.describe,
  leaf_norms: automatic.describe,
}


def describe(op: Callable[..., Any], *args: Any, **settings: Any) -> Choice:
  """Which implementation of `op` these arguments get, and why.

  Args:
    op: One of the public ops.
    *args: Its arrays, or `jax.ShapeDtypeStruct`s in their place.
    **settings: Its settings, but `implementation`.

  Returns:
    A `Choice`: the implementation, the chip, the reason, the block sizes.

  Raises:
    ValueError: arguments that the op would refuse.

  >>> import jax, jax.numpy as jnp
  >>> from podscale import kernels
  >>> x = jax.ShapeDtypeStruct((56, 56, 64, 144), jnp.bfloat16)
  >>> filters = jax.ShapeDtypeStruct((3, 3, 144), jnp.bfloat16)
  >>> choice = describe(kernels.depthwise_conv_bn, x, filters)
  >>> choice.implementation
  'xla'
  """
  if op in _DESCRIPTIONS:
    return _DESCRIPTIONS[op](*args, **settings)
  reason = "the op has no other implementation"
  return Choice("xla", target_chip().name, reason, {})
