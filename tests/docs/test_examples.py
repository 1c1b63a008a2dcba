"""Models of docs/examples, against the same networks in plain lax."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from support.doc_pages import ROOT

sys.path.insert(0, str(ROOT / "docs" / "examples"))

import mobilenet_v2


def test_mobilenet_v2_has_as_many_parameters_as_torchvisions():
  model = nnx.eval_shape(
    lambda: mobilenet_v2.MobileNetV2(1000, rngs=nnx.Rngs(0))
  )
  assert mobilenet_v2.count_params(model) == 3_504_872


def convolve(x, kernel, stride=1, groups=1):
  padding = [(kernel.shape[0] // 2,) * 2, (kernel.shape[1] // 2,) * 2]
  return lax.conv_general_dilated(
    *(x, kernel, (stride, stride), padding),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


def normalise(x, norm):
  mean, variance = (
    statistic(x, axis=(0, 1, 2), keepdims=True)
    for statistic in (jnp.mean, jnp.var)
  )
  scale, offset = (norm[name][None, None, None] for name in ("scale", "offset"))
  return (x - mean) * lax.rsqrt(variance + 1e-5) * scale + offset


def plain_mobilenet_v2(params, images):
  """Compute MobileNetV2's logits in the dtype of the arguments."""
  x = convolve(images, params["stem"]["kernel"], 2)
  x = jax.nn.relu6(normalise(x, params["stem_norm"]))
  blocks = iter(params["blocks"].values())
  for expansion, _, count, first_stride in mobilenet_v2.STAGES:
    for i in range(count):
      block, stride = next(blocks), first_stride if i == 0 else 1
      y = x
      if expansion > 1:
        y = convolve(y, block["expand"][None, None])
        y = jax.nn.relu6(normalise(y, block["expand_norm"]))
      y = convolve(y, block["filters"][:, :, None], stride, y.shape[3])
      y = jax.nn.relu6(normalise(y, block["depthwise_norm"]))
      y = convolve(y, block["project"][None, None])
      y = normalise(y, block["project_norm"])
      x = x + y if x.shape == y.shape else y
  x = convolve(x, params["head"][None, None])
  x = jax.nn.relu6(normalise(x, params["head_norm"]))
  dense = params["classifier"]
  return jnp.mean(x, axis=(1, 2)) @ dense["kernel"] + dense["bias"][None]


def loss_and_gradient(logits_of, params, images):
  def loss(params):
    logits = logits_of(params, images)
    return jnp.sum(jnp.sin(logits)), logits

  (_, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    params
  )
  leaves = [np.float64(leaf).ravel() for leaf in jax.tree.leaves(gradient)]
  return np.float64(logits), np.concatenate(leaves)


def test_mobilenet_v2_computes_what_plain_lax_does():
  model = mobilenet_v2.MobileNetV2(10, width=0.25, rngs=nnx.Rngs(0))
  graph, state, rest = nnx.split(model, nnx.Param, ...)
  params = nnx.to_pure_dict(state)
  images = jax.random.normal(jax.random.key(1), (4, 64, 64, 3))

  def fused(params, images):
    weights, statistics = jax.tree.map(lambda x: x, (state, rest))
    nnx.replace_by_pure_dict(weights, params)
    return nnx.merge(graph, weights, statistics)(images)

  ours = loss_and_gradient(fused, params, images)
  plain = loss_and_gradient(plain_mobilenet_v2, params, images)
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
    exact = loss_and_gradient(
      plain_mobilenet_v2, wide, jnp.asarray(images, jnp.float64)
    )
  # Both round in other places; twice the error of the plain one, as elsewhere,
  # of all values together.
  for actual, other, want in zip(ours, plain, exact, strict=True):
    error, allowed = (np.linalg.norm(x - want) for x in (actual, other))
    assert error <= 2 * allowed
    # A plain network that is wrong itself would allow anything.
    assert allowed <= 1e-3 * np.linalg.norm(want)
