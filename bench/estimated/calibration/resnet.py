"""Training step of ResNet-50 in plain JAX, whose time on TPUs is published.

He et al. 2015, arXiv:1512.03385, with the stride in the 3x3 convolution. Batch
norm takes the moments of one core's images, as in the published runs.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import PartitionSpec as P

from ..pod_step import placed

_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width, blocks
_EXPANSION = 4
_CLASSES = 1000
_L2 = 1e-4
_SIDE = 224  # pixels
_AXIS = "cores"

Weights = dict[str, Any]


def lower_step(
  devices: list[jax.Device], batch: int, *, space_to_depth: bool = False
) -> jax.stages.Lowered:
  """Lower a step of SGD with momentum, in bfloat16 with float32 weights.

  Args:
    devices: All devices of a slice, which need not exist.
    batch: Images on each device.
    space_to_depth: True for images that come as blocks of 2x2 pixels in 12
      channels, as in MLPerf submissions. The stem is then a 4x4 convolution.
  """
  mesh = jax.sharding.Mesh(devices, _AXIS)
  optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)

  def step(weights, state, images, labels):
    loss, grads = jax.value_and_grad(_loss)(
      lax.pcast(weights, _AXIS, to="varying"), images, labels
    )
    grads, loss = lax.pmean((grads, loss), _AXIS)
    changes, state = optimizer.update(grads, state, weights)
    return optax.apply_updates(weights, changes), state, loss

  sharded = jax.shard_map(
    step, mesh=mesh, in_specs=(P(), P(), P(_AXIS), P(_AXIS)), out_specs=P()
  )
  weights = jax.eval_shape(partial(_init_weights, space_to_depth))
  state = jax.eval_shape(optimizer.init, weights)
  count = batch * len(devices)
  pixels = (_SIDE // 2, _SIDE // 2, 12) if space_to_depth else (_SIDE, _SIDE, 3)
  images = jax.ShapeDtypeStruct((count, *pixels), jnp.bfloat16)
  labels = jax.ShapeDtypeStruct((count,), jnp.int32)
  return jax.jit(sharded, donate_argnums=(0, 1)).lower(
    *placed((weights, state), mesh, P()),
    *placed((images, labels), mesh, P(_AXIS)),
  )


def _init_weights(space_to_depth: bool) -> Weights:
  """Return weights of zeros; only their shapes matter here."""
  stem = (4, 12, 64) if space_to_depth else (7, 3, 64)
  weights = {"stem": _conv_weights(*stem)}
  channels = 64
  for stage, (width, blocks) in enumerate(_STAGES):
    for block in range(blocks):
      name = f"stage{stage}/block{block}"
      wide = _EXPANSION * width
      weights[f"{name}/reduce"] = _conv_weights(1, channels, width)
      weights[f"{name}/middle"] = _conv_weights(3, width, width)
      weights[f"{name}/expand"] = _conv_weights(1, width, wide)
      if not block:
        weights[f"{name}/skip"] = _conv_weights(1, channels, wide)
      channels = wide
  weights["classifier"] = {
    "kernel": jnp.zeros((channels, _CLASSES)),
    "bias": jnp.zeros(_CLASSES),
  }
  return weights


def _logits(weights: Weights, images: jax.Array) -> jax.Array:
  """Compute float32 logits, `[n, 1000]`, of images `[n, h, w, c]`."""
  stride = 2 if images.shape[-1] == 3 else 1
  x = jax.nn.relu(_conv_norm(images, weights["stem"], stride))
  x = lax.reduce_window(
    x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"
  )
  for stage, (_, blocks) in enumerate(_STAGES):
    for block in range(blocks):
      stride = 2 if stage and not block else 1
      x = _block(x, weights, f"stage{stage}/block{block}", stride)
  pooled = jnp.mean(x, (1, 2), dtype=jnp.float32).astype(x.dtype)
  dense = weights["classifier"]
  return (pooled @ dense["kernel"].astype(x.dtype)).astype(jnp.float32) + dense[
    "bias"
  ]


def _loss(weights: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
  """Compute cross entropy and the L2 penalty of the kernels."""
  entropy = optax.softmax_cross_entropy_with_integer_labels(
    _logits(weights, images), labels
  ).mean()
  kernels = [x for x in jax.tree.leaves(weights) if x.ndim > 1]
  return entropy + _L2 / 2 * sum(jnp.sum(x * x) for x in kernels)


def _block(x, weights, name, stride):
  shortcut = x
  if f"{name}/skip" in weights:
    shortcut = _conv_norm(x, weights[f"{name}/skip"], stride)
  y = jax.nn.relu(_conv_norm(x, weights[f"{name}/reduce"]))
  y = jax.nn.relu(_conv_norm(y, weights[f"{name}/middle"], stride))
  y = _conv_norm(y, weights[f"{name}/expand"])
  return jax.nn.relu(y + shortcut)


def _conv_weights(size: int, inputs: int, outputs: int) -> Weights:
  return {
    "kernel": jnp.zeros((size, size, inputs, outputs)),
    "scale": jnp.zeros(outputs),
    "offset": jnp.zeros(outputs),
  }


def _conv_norm(x, weights, stride=1):
  """Convolve and normalise by the moments of the batch."""
  y = lax.conv_general_dilated(
    x,
    weights["kernel"].astype(x.dtype),
    (stride, stride),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  values = y.astype(jnp.float32)
  mean = jnp.mean(values, (0, 1, 2))
  variance = jnp.mean(values * values, (0, 1, 2)) - mean * mean
  scale = weights["scale"] * lax.rsqrt(variance + 1e-5)
  y = (values - mean) * scale + weights["offset"]
  return y.astype(x.dtype)
