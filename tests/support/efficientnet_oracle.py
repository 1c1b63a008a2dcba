"""EfficientNet in training mode, from its published block strings.

Plain JAX, written from `efficientnet_builder.py` and `efficientnet_model.py` of
TensorFlow's reference. Every sum is in the dtype of the arguments, so
`jax.enable_x64` makes it float64. It has no dropout and no stochastic depth.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

BLOCKS = (
  "r1_k3_s11_e1_i32_o16",
  "r2_k3_s22_e6_i16_o24",
  "r2_k5_s22_e6_i24_o40",
  "r3_k3_s22_e6_i40_o80",
  "r3_k5_s11_e6_i80_o112",
  "r4_k5_s22_e6_i112_o192",
  "r1_k3_s11_e6_i192_o320",
)
EPSILON = 1e-3


def logits(params, images, *, depth, stem_stride):
  """Compute logits [n, classes] from images [n, h, w, 3], in their dtype.

  The channel counts come from the parameters, whose names are podscale's.
  """
  x = _conv(images, params["stem"]["kernel"], stem_stride)
  x = _swish(_batch_norm(x, params["stem"]["norm"]))
  blocks = iter(params["blocks"][i] for i in range(len(params["blocks"])))
  for string in BLOCKS:
    repeats, kernel, stride, *_ = (int(s[1:2]) for s in string.split("_"))
    for repeat in range(math.ceil(repeats * depth)):
      x = _block(x, next(blocks), kernel, stride if repeat == 0 else 1)
  assert next(blocks, None) is None
  x = _swish(_batch_norm(_pointwise(x, params["head"]), params["head"]["norm"]))
  return _dense(jnp.mean(x, axis=(1, 2)), params["classifier"])


def _block(inputs, params, kernel, stride):
  x = inputs
  if "expand" in params:
    x = _swish(
      _batch_norm(_pointwise(x, params["expand"]), params["expand"]["norm"])
    )
  filters = params["depthwise"]["filters"]
  assert filters.shape[:2] == (kernel, kernel)
  x = _conv(x, filters[:, :, None], stride, groups=x.shape[3])
  x = _swish(_batch_norm(x, params["depthwise"]["norm"]))
  gate = _swish(_dense(jnp.mean(x, (1, 2)), params["squeeze_excite"]["reduce"]))
  gate = jax.nn.sigmoid(_dense(gate, params["squeeze_excite"]["expand"]))
  x = _pointwise(x * gate[:, None, None], params["project"])
  x = _batch_norm(x, params["project"]["norm"])
  return inputs + x if inputs.shape == x.shape else x


def _conv(x, kernel, stride, groups=1):
  """Convolve with TensorFlow's 'SAME' padding: an odd zero goes to the end."""
  padding = []
  for size, taps in zip(x.shape[1:3], kernel.shape[:2], strict=True):
    total = max((-(-size // stride) - 1) * stride + taps - size, 0)
    padding.append((total // 2, total - total // 2))
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    feature_group_count=groups,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _pointwise(x, params):
  return jnp.einsum("nhwi,io->nhwo", x, params["kernel"])


def _dense(x, params):
  return x @ params["kernel"] + params["bias"][None]


def _batch_norm(x, params):
  mean = jnp.mean(x, axis=(0, 1, 2), keepdims=True)
  variance = jnp.mean((x - mean) ** 2, axis=(0, 1, 2), keepdims=True)
  scale, offset = (params[k][None, None, None] for k in ("scale", "bias"))
  return (x - mean) / jnp.sqrt(variance + EPSILON) * scale + offset


def _swish(x):
  return x * jax.nn.sigmoid(x)
