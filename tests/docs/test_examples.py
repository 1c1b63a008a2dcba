"""Models of docs/examples, against the same networks in plain lax."""

import sys
import zlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import DictKey
from support.doc_pages import ROOT
from support.slow_case import slow

sys.path.insert(0, str(ROOT / "docs" / "examples"))

import convnext
import efficientnet_lite
import mnasnet
import mobilenet_v2
import mobilenet_v3
import mobilenet_v4
import plain_networks


class Example(NamedTuple):
  """A model, the plain function, and the published number of parameters."""

  create: Any
  plain: Any
  parameters: int


EXAMPLES = {
  # torchvision's.
  "mobilenet_v2": Example(
    mobilenet_v2.MobileNetV2, plain_networks.mobilenet_v2_logits, 3_504_872
  ),
  "mobilenet_v3": Example(
    mobilenet_v3.MobileNetV3Large,
    plain_networks.mobilenet_v3_logits,
    5_483_032,
  ),
  "mnasnet": Example(
    mnasnet.MnasNetB1, plain_networks.mnasnet_logits, 4_383_312
  ),
  "convnext": Example(
    convnext.ConvNeXtTiny, plain_networks.convnext_logits, 28_589_128
  ),
  # timm's.
  "mobilenet_v4": Example(
    mobilenet_v4.MobileNetV4ConvSmall,
    plain_networks.mobilenet_v4_logits,
    3_774_024,
  ),
  "efficientnet_lite": Example(
    efficientnet_lite.efficientnet_lite0,
    plain_networks.efficientnet_lite0_logits,
    4_652_008,
  ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_parameters_are_as_many_as_published(name):
  example = EXAMPLES[name]
  model = nnx.eval_shape(lambda: example.create(1000, rngs=nnx.Rngs(0)))
  state = nnx.state(model, nnx.Param)
  count = sum(leaf.size for leaf in jax.tree.leaves(state))
  assert count == example.parameters


def loss_and_gradient(logits_of):
  """Compile a function to the logits and all gradients in one vector."""

  def loss(params, images):
    logits = logits_of(params, images)
    return jnp.sum(jnp.sin(logits)), logits

  options = {"xla_backend_optimization_level": 0}  # compiling takes longest
  gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=options)

  def run(params, images):
    gradients, logits = gradient(params, images)
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(gradients)]
    return np.asarray(logits), np.concatenate(leaves)

  return run


def moved(leaf, seed):
  """Move all values by one ulp, up or down."""
  rng = np.random.default_rng(seed)
  sign = np.float32(rng.choice([-1, 1], leaf.shape))
  return np.nextafter(leaf, np.asarray(leaf) + sign)


def unlike_ones(path, leaf):
  """Move scales and offsets from their initial ones and zeros."""
  if leaf.ndim > 1:
    return leaf
  key = jax.random.key(zlib.crc32(jax.tree_util.keystr(path).encode()))
  start = 0.5 if path[-1] == DictKey("gamma") else leaf
  return start + 0.2 * jax.random.normal(key, leaf.shape)


# One with gates and one with layer norm, the others with the slow tests.
@pytest.mark.parametrize(
  "name",
  [
    "mobilenet_v3",
    "convnext",
    *map(slow, sorted({*EXAMPLES} - {"mobilenet_v3", "convnext"})),
  ],
)
def test_models_compute_what_plain_lax_does(name):
  example = EXAMPLES[name]
  options = {}
  if example.create is efficientnet_lite.efficientnet_lite0:
    options["dtype"] = jnp.float32  # the others take the images' dtype
  model = example.create(10, rngs=nnx.Rngs(0), **options)
  graph, state, rest = nnx.split(model, nnx.Param, ...)
  params = jax.tree_util.tree_map_with_path(
    unlike_ones, nnx.to_pure_dict(state)
  )
  images = jax.random.normal(jax.random.key(1), (4, 64, 64, 3))

  def fused(params, images):
    weights, statistics = jax.tree.map(lambda x: x, (state, rest))
    nnx.replace_by_pure_dict(weights, params)
    return nnx.merge(graph, weights, statistics)(images)

  ours = loss_and_gradient(fused)(params, images)
  plain = loss_and_gradient(example.plain)
  want = plain(params, images)
  # What the plain network's results change by when every input moves by an ulp
  # is the rounding that no implementation avoids: also a value that crosses
  # the kink of a relu.
  draws = [
    plain(*jax.tree.map(partial(moved, seed=seed), (params, images)))
    for seed in range(6)
  ]
  for i, (actual, expected) in enumerate(zip(ours, want, strict=True)):
    unit = max(np.linalg.norm(draw[i] - expected) for draw in draws)
    assert np.linalg.norm(actual - expected) <= 2 * unit
    # A network in which anything is possible would prove nothing.
    assert unit <= 0.02 * np.linalg.norm(expected)
