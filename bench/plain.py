"""EfficientNet in plain JAX, as anyone would write it, to compare with.

NHWC, `lax` convolutions with feature groups, an ordinary batch norm, and
autodiff throughout. It takes the parameters of `podscale.model`'s network, so
that both compute the same function.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ..model import EfficientNet, ModelSpec
from ..model.spec import BlockSpec, block_specs

Params = dict[Any, Any]

_EPSILON = 1e-3


class PlainEfficientNet(EfficientNet):
  """The network computed by `plain_efficientnet`; training only.

  It has the same variables, so the same training step takes it. It drops
  nothing and leaves the running statistics as they are.
  """

  def __init__(self, spec: ModelSpec, **settings: Any):
    super().__init__(spec, **settings)
    self.spec = spec

  def __call__(
    self, images: jax.Array, *, rngs: nnx.Rngs | None = None
  ) -> jax.Array:
    """Logits; see `EfficientNet`."""
    params = nnx.to_pure_dict(nnx.state(self, nnx.Param))
    return plain_efficientnet(params, images.astype(self.dtype), self.spec)


def plain_efficientnet(
  params: Params, images: jax.Array, spec: ModelSpec
) -> jax.Array:
  """Training-mode logits, without dropout and stochastic depth.

  Args:
    params: `nnx.to_pure_dict(nnx.state(model, nnx.Param))`.
    images: `[n, h, w, c]`, floating; its dtype is that of the computation.
    spec: Of the network that the parameters are for.

  Returns:
    `[n, classes]` float32.
  """
  x = _conv(images, params["stem"]["kernel"], spec.stem_stride)
  x = jax.nn.silu(_batch_norm(x, params["stem_norm"]))
  for i, block in enumerate(block_specs(spec)):
    x = _block(x, params["blocks"][i], block)
  x = _conv(x, params["head"]["kernel"][None, None])
  x = jax.nn.silu(_batch_norm(x, params["head_norm"]))
  x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
  classifier = params["classifier"]
  return x @ classifier["kernel"] + classifier["bias"][None]


def _block(x, params, spec: BlockSpec):
  inputs = x
  if "expand" in params:
    x = _conv(x, params["expand"]["kernel"][None, None])
    x = jax.nn.silu(_batch_norm(x, params["expand_norm"]))
  filters = params["depthwise"]["filters"][:, :, None]
  x = _conv(x, filters, spec.stride, groups=x.shape[3])
  x = jax.nn.silu(_batch_norm(x, params["depthwise_norm"]))
  x = x * _squeeze_excite(x, params["squeeze_excite"])
  x = _conv(x, params["project"]["kernel"][None, None])
  x = _batch_norm(x, params["project_norm"])
  if spec.stride == 1 and spec.in_filters == spec.out_filters:
    x = x + inputs
  return x


def _squeeze_excite(x, params):
  x = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
  x = x.astype(params["reduce"]["kernel"].dtype)
  x = jax.nn.silu(_biased(x, params["reduce"]))
  return jax.nn.sigmoid(_biased(x, params["expand"])).astype(x.dtype)


def _biased(x, params):
  return (
    _conv(x, params["kernel"][None, None]) + params["bias"][None, None, None]
  )


def _batch_norm(x, params):
  dtype = x.dtype
  x = x.astype(jnp.float32)
  mean = jnp.mean(x, axis=(0, 1, 2), keepdims=True)
  variance = jnp.mean(jnp.square(x - mean), axis=(0, 1, 2), keepdims=True)
  scale = params["scale"][None, None, None] * lax.rsqrt(variance + _EPSILON)
  offset = params["offset"][None, None, None]
  return ((x - mean) * scale + offset).astype(dtype)


def _conv(x, kernel, stride=1, groups=1):
  return lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    (stride, stride),
    "SAME",
    feature_group_count=groups,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
