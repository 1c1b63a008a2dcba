"""The op and its derivative: one rule for all implementations.

All implementations keep the same residuals. So the derivative wraps the choice
of implementation, which is made when the op is lowered for a platform.
"""

from functools import partial

import jax
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from .settings import Call, Gradients, Implementation, Residuals, Results
from .tpu import pallas_tpu
from .xla import grouped, shifted
from .xla.unbanded import Unbanded

_IMPLEMENTATIONS = {
  "shifted": Unbanded(shifted),
  "grouped": Unbanded(grouped),
  "pallas_tpu": pallas_tpu,
}


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def depthwise_conv_bn(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  call: Call,
) -> Results:
  """See `podscale.kernels.depthwise_conv_bn`."""
  return _on_platform("forward", call, x, filters, scale, offset)


def _forward(x, filters, scale, offset, call) -> tuple[Results, Residuals]:
  results = depthwise_conv_bn(x, filters, scale, offset, call)
  y, moments = checkpoint_name(results, "depthwise_conv_bn")
  return (y, moments), (x, filters, scale, offset, y, moments)


def _backward(call, residuals, cotangents) -> Gradients:
  return _on_platform("backward", call, residuals, cotangents)


depthwise_conv_bn.defvjp(_forward, _backward)


def _on_platform(direction: str, call: Call, *args):
  """Run one direction of the implementation of each platform."""

  def run(implementation: Implementation):
    function = getattr(_IMPLEMENTATIONS[implementation], direction)
    return lambda *args: function(*args, call)

  if call.on_tpu == call.elsewhere:
    return run(call.on_tpu)(*args)
  return lax.platform_dependent(
    *args, tpu=run(call.on_tpu), default=run(call.elsewhere)
  )
