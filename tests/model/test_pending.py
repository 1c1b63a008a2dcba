"""Modules whose batch norm is pending, against flax's own layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.tolerance import assert_accurate

from podscale import model as podscale
from podscale.model import DepthwiseConvBN, PointwiseConvBN, SqueezeExcite

NORM = functools.partial(podscale.BatchNorm, epsilon=1e-5)


class Fused(nnx.Module):
  """Inverted bottleneck of our modules."""

  def __init__(self, activation, layout, rngs):
    options = dict(layout=layout, norm=NORM, rngs=rngs)
    self.expand = PointwiseConvBN(4, 12, activation=activation, **options)
    self.depthwise = DepthwiseConvBN(
      *(12, (3, 5)),
      stride=2,
      padding=((1, 1), (2, 2)),
      activation=activation,
      **options,
    )
    self.squeeze_excite = SqueezeExcite(
      12, 3, activation="relu", gate="hard_sigmoid", rngs=rngs
    )
    self.project = PointwiseConvBN(12, 8, **options)

  def __call__(self, x):
    y = self.depthwise(self.expand(x))
    return self.project(y, self.squeeze_excite).normalised()


class Plain(nnx.Module):
  """The same of flax's modules, on NHWC."""

  def __init__(self, activation, rngs):
    def conv(n, m, size, **options):
      return nnx.Conv(n, m, size, use_bias=False, rngs=rngs, **options)

    def norm(n):
      return nnx.BatchNorm(n, rngs=rngs, use_fast_variance=False)

    self.activation = activation
    self.expand, self.expand_norm = conv(4, 12, (1, 1)), norm(12)
    self.depthwise = conv(
      *(12, 12, (3, 5)),
      strides=2,
      padding=((1, 1), (2, 2)),
      feature_group_count=12,
    )
    self.depthwise_norm = norm(12)
    self.reduce = nnx.Linear(12, 3, rngs=rngs)
    self.widen = nnx.Linear(3, 12, rngs=rngs)
    self.project, self.project_norm = conv(12, 8, (1, 1)), norm(8)

  def __call__(self, x):
    x = self.activation(self.expand_norm(self.expand(x)))
    x = self.activation(self.depthwise_norm(self.depthwise(x)))
    gate = jax.nn.relu(self.reduce(x.mean((1, 2))))
    gate = jax.nn.hard_sigmoid(self.widen(gate))
    return self.project_norm(self.project(x * gate[:, None, None]))


def named(plain):
  """Name the weights of `Plain` as those of `Fused`."""
  conv = {
    name: {"norm": dict(plain[f"{name}_norm"])}
    for name in ("expand", "depthwise", "project")
  }
  for name, key in (("expand", "kernel"), ("project", "kernel")):
    if "kernel" in plain.get(name, {}):
      conv[name][key] = plain[name]["kernel"][0, 0]
  if "kernel" in plain.get("depthwise", {}):
    conv["depthwise"]["filters"] = plain["depthwise"]["kernel"][:, :, 0]
  if "reduce" in plain:
    gate = {"reduce": plain["reduce"], "expand": plain["widen"]}
    conv["squeeze_excite"] = gate
  return conv


def draw(tree, seed):
  """Draw weights; matrices are so small that no gate saturates."""
  rng = np.random.default_rng(seed)

  def fill(x):
    if x.ndim == 1:
      return np.float32(rng.uniform(0.5, 1.5, x.shape))
    return np.float32(0.3 * rng.normal(size=x.shape))

  return jax.tree.map(fill, tree)


ACTIVATIONS = {
  "relu6": jax.nn.relu6,
  "hard_swish": jax.nn.hard_swish,
  None: lambda x: x,
}


def run(graph, train, params, stats, x, dy):
  def loss(params, x):
    model = nnx.merge(graph, nnx.State(params), nnx.State(stats), copy=True)
    model.train() if train else model.eval()
    y = model(x)
    after = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    return jnp.sum(y * dy.astype(y.dtype)), (y, after)

  (dparams, dx), (y, after) = jax.grad(loss, argnums=(0, 1), has_aux=True)(
    params, x
  )
  return y, dx, dparams, after


def flat(outcome, rename=lambda tree: tree):
  y, dx, dparams, after = outcome
  trees = {"y": y, "dx": dx, "dp": rename(dparams), "after": rename(after)}
  leaves = jax.tree_util.tree_leaves_with_path(trees)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


@pytest.mark.parametrize("layout", ["NHWC", "HWNC"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_modules_are_flaxs_layers(activation, train, layout):
  plain_model = Plain(ACTIVATIONS[activation], nnx.Rngs(0))
  plain_graph, params, stats = nnx.split(plain_model, nnx.Param, nnx.BatchStat)
  params, stats = (
    draw(nnx.to_pure_dict(tree), seed)
    for seed, tree in enumerate((params, stats))
  )
  graph = nnx.graphdef(Fused(activation, layout, nnx.Rngs(0)))
  rng = np.random.default_rng(1)
  x, dy = (
    np.float32(rng.normal(size=shape)) for shape in ((3, 9, 8, 4), (3, 5, 4, 8))
  )
  order = (1, 2, 0, 3) if layout == "HWNC" else (0, 1, 2, 3)
  ours = jax.jit(functools.partial(run, graph, train))(
    named(params), named(stats), x.transpose(order), dy.transpose(order)
  )
  y, dx, *rest = ours
  back = np.argsort(order)
  ours = (y.transpose(back), dx.transpose(back), *rest)
  plain = jax.jit(functools.partial(run, plain_graph, train))
  structure = jax.tree.structure((params, stats))

  def exact(x, dy, *leaves):
    leaves = [np.float64(leaf) for leaf in leaves]
    params, stats = jax.tree.unflatten(structure, leaves)
    return flat(plain(params, stats, np.float64(x), np.float64(dy)), named)

  def in_float64(*arrays):
    # flax's batch norm starts from float32 constants.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
      return jax.tree.map(np.asarray, exact(*arrays))

  assert_accurate(
    flat(ours),
    flat(plain(params, stats, x, dy), named),
    in_float64,
    *(x, dy, *jax.tree.leaves((params, stats))),
  )


def test_evaluation_computes_no_moments_and_folds_the_scale():
  model = Fused("relu6", "NHWC", nnx.Rngs(0))
  model.eval()
  x = jnp.ones((2, 4, 4, 4))
  y = model.depthwise(model.expand(x))
  assert y.scale is None and y.offset.shape == (12,)
  before = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
  model(x)
  after = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
  jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_call_chooses_for_itself_as_a_view_does():
  layer = PointwiseConvBN(4, 12, rngs=nnx.Rngs(0))
  x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
  averaged = layer(x, use_running_average=True)
  assert averaged.scale is None and not layer.norm.mean[...].any()
  viewed = nnx.view(layer, use_running_average=True)(x)
  np.testing.assert_array_equal(viewed.raw, averaged.raw)
  assert layer(x).scale is not None and layer.norm.mean[...].all()
  layer.eval()
  assert layer(x, use_running_average=False).scale is not None


def test_a_pending_result_passes_through_jit():
  layer = DepthwiseConvBN(4, 3, activation="silu", rngs=nnx.Rngs(0))
  x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
  pending = nnx.jit(lambda layer, x: layer(x))(layer, x)
  assert (pending.activation, pending.layout) == ("silu", "NHWC")
  # Means of nine values, in another order.
  want = pending.normalised().mean((1, 2))
  allowed = 9 * 2.0**-24 * np.abs(pending.normalised()).max()
  np.testing.assert_allclose(pending.pooled(), want, rtol=0, atol=allowed)


def test_what_does_not_fit_is_one_line():
  layer = DepthwiseConvBN(4, 3, rngs=nnx.Rngs(0))
  with pytest.raises(
    ValueError, match=r"filters must have shape \(kh, kw, 5\)"
  ):
    layer(jnp.ones((2, 3, 3, 5)))
