"""The networks of this folder in plain `lax`, to compare with.

Every function takes a model's weights as nested dicts and images
`[n, h, w, 3]`, computes in the dtype of the images with statistics in float32
or more, and returns logits. Batch norm takes the statistics of the batch.
"""

from functools import partial

import jax
import jax.numpy as jnp
import mnasnet
import mobilenet_v2
import mobilenet_v3
import mobilenet_v4
from jax import lax

from podscale.model import model_spec
from podscale.model.spec import block_specs

SAME = "SAME"  # TensorFlow's padding; None is PyTorch's, k // 2


def convolve(x, kernel, stride=1, groups=1, padding=None):
  """Convolve `[n, h, w, c]` by a kernel in HWIO."""
  sides = [(k // 2, k // 2) for k in kernel.shape[:2]]
  return lax.conv_general_dilated(
    *(x, kernel.astype(x.dtype), (stride, stride), padding or sides),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


def wide(x):
  """Cast bfloat16 to float32."""
  return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def normalise(x, norm, epsilon, axes=(0, 1, 2)):
  """Apply batch norm over `axes`, or layer norm over the last axis."""
  values = wide(x)
  mean = jnp.mean(values, axis=axes, keepdims=True)
  variance = jnp.mean(jnp.square(values - mean), axis=axes, keepdims=True)
  vectors = (norm[key].reshape((1,) * (x.ndim - 1) + (-1,)) for key in norm)
  bias, scale = vectors  # dicts of JAX are sorted by their keys
  y = (values - mean) * lax.rsqrt(variance + epsilon) * scale + bias
  return y.astype(x.dtype)


def dense(x, params):
  """Apply a dense layer, with a bias if there is one."""
  y = wide(x @ params["kernel"].astype(x.dtype))
  return y + params["bias"][None] if "bias" in params else y


def pooled(x):
  """Compute the mean of each image."""
  return jnp.mean(wide(x), axis=(1, 2))


def gated(x, params, activation, gate):
  """Apply a squeeze-excite."""
  hidden = activation(dense(pooled(x).astype(x.dtype), params["reduce"]))
  factor = gate(dense(hidden.astype(x.dtype), params["expand"]))
  return x * factor.astype(x.dtype)[:, None, None]


def bottleneck(
  x,
  params,
  stride,
  activation,
  epsilon,
  padding=None,
  squeeze=jax.nn.relu,
  gate=jax.nn.hard_sigmoid,
):
  """Apply an inverted bottleneck: expand, depthwise, gate, project, add."""
  norm, y = partial(normalise, epsilon=epsilon), x
  if "before" in params:
    filters = params["before"]["filters"][:, :, None]
    # If no other depthwise convolution follows, this one has the stride.
    first = 1 if "after" in params else stride
    y = convolve(y, filters, first, y.shape[3])
    y = norm(y, params["before"]["norm"])
  if "expand" in params:
    y = convolve(y, params["expand"]["kernel"][None, None])
    y = activation(norm(y, params["expand"]["norm"]))
  middle = params.get("depthwise") or params.get("after")
  if middle:
    filters = middle["filters"][:, :, None]
    y = convolve(y, filters, stride, y.shape[3], padding)
    y = activation(norm(y, middle["norm"]))
  if "squeeze_excite" in params:
    y = gated(y, params["squeeze_excite"], squeeze, gate)
  y = convolve(y, params["project"]["kernel"][None, None])
  y = norm(y, params["project"]["norm"])
  return x + y if stride == 1 and x.shape == y.shape else y


def stem(params, images, activation, epsilon):
  """Apply a strided convolution and a batch norm."""
  x = convolve(images, params["stem"]["kernel"], 2)
  return activation(normalise(x, params["stem_norm"], epsilon))


def last(x, params, activation, epsilon, name="head"):
  """Apply a 1x1 convolution, and average each image."""
  x = convolve(x, params[name]["kernel"][None, None])
  return pooled(activation(normalise(x, params[name]["norm"], epsilon)))


def mobilenet_v2_logits(params, images):
  """Compute MobileNetV2's logits."""
  settings = jax.nn.relu6, 1e-5
  x, blocks = stem(params, images, *settings), iter(params["blocks"].values())
  for _, _, count, stride in mobilenet_v2.STAGES:
    for i in range(count):
      x = bottleneck(x, next(blocks), stride if i == 0 else 1, *settings)
  return dense(last(x, params, *settings), params["classifier"])


def mobilenet_v3_logits(params, images):
  """Compute MobileNetV3-Large's logits."""
  x = stem(params, images, jax.nn.hard_swish, 1e-3)
  for row, block in zip(
    mobilenet_v3.BLOCKS, params["blocks"].values(), strict=True
  ):
    x = bottleneck(x, block, row.stride, getattr(jax.nn, row.activation), 1e-3)
  x = last(x, params, jax.nn.hard_swish, 1e-3, "last")
  return dense(
    jax.nn.hard_swish(dense(x, params["head"])), params["classifier"]
  )


def mnasnet_logits(params, images):
  """Compute MnasNet-B1's logits."""
  settings = jax.nn.relu, 1e-5
  x, blocks = stem(params, images, *settings), iter(params["blocks"].values())
  for stage in mnasnet.STAGES:
    for i in range(stage.repeats):
      x = bottleneck(x, next(blocks), stage.stride if i == 0 else 1, *settings)
  return dense(last(x, params, *settings), params["classifier"])


def mobilenet_v4_logits(params, images):
  """Compute MobileNetV4-Conv-Small's logits."""
  x, settings = images, (jax.nn.relu, 1e-5)
  for (_, stride, _), layer in zip(
    mobilenet_v4.DENSE, params["dense"].values(), strict=True
  ):
    x = convolve(x, layer["conv"]["kernel"], stride)
    x = jax.nn.relu(normalise(x, layer["norm"], 1e-5))
  for row, block in zip(
    mobilenet_v4.BLOCKS, params["blocks"].values(), strict=True
  ):
    x = bottleneck(x, block, row.stride, *settings)
  x = dense(last(x, params, *settings, "last"), params["head"])
  x = jax.nn.relu(normalise(x, params["head_norm"], 1e-5, 0))
  return dense(x, params["classifier"])


def efficientnet_lite0_logits(params, images):
  """Compute EfficientNet-Lite0's logits."""
  settings = jax.nn.relu6, 1e-3
  x = convolve(images, params["stem"]["kernel"], 2, padding=SAME)
  x = jax.nn.relu6(normalise(x, params["stem"]["norm"], 1e-3))
  for spec, block in zip(
    block_specs(model_spec("lite0")), params["blocks"].values(), strict=True
  ):
    x = bottleneck(x, block, spec.stride, *settings, SAME)
  return dense(last(x, params, *settings), params["classifier"])


def convnext_logits(params, images):
  """Compute ConvNeXt-Tiny's logits."""
  x, channels = images, partial(normalise, epsilon=1e-6, axes=-1)
  for i, blocks in params["stages"].items():
    layer, norm = params["downsample"][i], params["norms"][i]
    size = 2 if i else 4
    x = channels(x, norm) if i else x
    x = lax.conv_general_dilated(
      *(x, layer["kernel"].astype(x.dtype), (size, size), "VALID"),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = x + layer["bias"].astype(x.dtype)[None, None, None]
    x = x if i else channels(x, norm)
    for block in blocks.values():
      y = convolve(x, block["filters"][:, :, None], 1, x.shape[3])
      y = y + block["bias"].astype(x.dtype)[None, None, None]
      y = channels(y, block["norm"])
      for name in ("widen", "narrow"):
        layer = block[name]
        y = y @ layer["kernel"].astype(x.dtype)
        y = y + layer["bias"].astype(x.dtype)[None, None, None]
        y = jax.nn.gelu(y, approximate=False) if name == "widen" else y
      x = x + y * block["gamma"].astype(x.dtype)[None, None, None]
  y = channels(pooled(x), params["head_norm"])
  return dense(y, params["classifier"])
