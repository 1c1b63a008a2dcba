"""The op and its derivative: one rule for all implementations.

All implementations keep the same residuals. So the derivative wraps the choice
of implementation, which is made when the op is lowered for a platform.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from ..selection.selection import run
from .batching import with_batching
from .settings import Call, Gradients, Residuals, Results
from .tpu import pallas_tpu
from .xla import grouped, shifted
from .xla.unbanded import Unbanded

_ON_TPU: dict[str, Any] = {
  "xla": Unbanded(grouped),
  "pallas_tpu": pallas_tpu,
}
# XLA:TPU has code of its own for grouped convolutions; elsewhere shifted
# products are faster.
_ELSEWHERE: dict[str, Any] = {"xla": Unbanded(shifted)}


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def depthwise_conv_bn(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  call: Call,
) -> Results:
  """See `podscale.kernels.depthwise_conv_bn`."""
  return _run("forward", call, x, filters, scale, offset)


def _forward(x, filters, scale, offset, call) -> tuple[Results, Residuals]:
  results = depthwise_conv_bn(x, filters, scale, offset, call)
  y, moments = checkpoint_name(results, "depthwise_conv_bn")
  kept = None if moments is None else y
  return (y, moments), (x, filters, scale, offset, kept, moments)


def _backward(call, residuals, cotangents) -> Gradients:
  return _run("backward", call, residuals, cotangents)


depthwise_conv_bn.defvjp(_forward, _backward)


def _run(direction: str, call: Call, *args: Any) -> Any:
  """Run one direction by the implementation of each platform."""

  def on_tpu(name: str, call: Call, *args: Any) -> Any:
    return getattr(_ON_TPU[name], direction)(*args, call=call)

  by_name: dict[str, Callable[..., Any]] = {
    name: partial(on_tpu, name, call) for name in _ON_TPU
  }
  by_name["pallas_tpu"] = with_batching(by_name["pallas_tpu"], on_tpu, call)
  elsewhere = {
    name: partial(getattr(module, direction), call=call)
    for name, module in _ELSEWHERE.items()
  }
  return run(call.selection, by_name, *args, elsewhere=elsewhere)
