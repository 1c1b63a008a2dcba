"""The op with its gradients: one rule, whatever form computes it.

All forms keep the same arrays for the backward pass, so the form can be chosen
inside, when it is lowered for a platform.
"""

from functools import partial

import jax
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from .settings import Call, Results
from .tpu import plan as pallas_tpu
from .xla import grouped as conv_form
from .xla import shifted as taps_form
from .xla.unbanded import Unbanded

_FORMS = {
  "taps": Unbanded(taps_form),
  "conv": Unbanded(conv_form),
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


def _forward(x, filters, scale, offset, call):
  results = depthwise_conv_bn(x, filters, scale, offset, call)
  y, moments = checkpoint_name(results, "depthwise_conv_bn")
  return (y, moments), (x, filters, scale, offset, y, moments)


def _backward(call, residuals, cotangents):
  return _on_platform("backward", call, residuals, cotangents)


depthwise_conv_bn.defvjp(_forward, _backward)


def _on_platform(name, call: Call, *args):
  def run(form):
    function = getattr(_FORMS[form], name)
    return lambda *args: function(*args, call)

  if call.on_tpu == call.elsewhere:
    return run(call.on_tpu)(*args)
  return lax.platform_dependent(
    *args, tpu=run(call.on_tpu), default=run(call.elsewhere)
  )
