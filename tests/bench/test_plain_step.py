"""The step in plain JAX takes the same step as ours."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tolerance import half_ulp

from podscale.bench.plain import PlainEfficientNet
from podscale.bench.plain_step import make_plain_step, plain_state
from podscale.collectives import group_mesh
from podscale.model import EfficientNet, model_spec
from podscale.train.optimizer import make_optimizer
from podscale.train.placement import Placement
from podscale.train.presets import get_preset
from podscale.train.step import ImageScale, make_train_step

BATCH = 32
MOMENTUM = 0.99  # of batch norm
STEPS = 2
SPEC = model_spec(
  "b0",
  width=0.25,
  depth=0.25,
  resolution=32,
  stem_stride=1,
  dropout=0.0,
  survival_prob=1.0,
)
SCALE = ImageScale((120.0, 110.0, 100.0), (60.0, 50.0, 40.0))
CONFIG = dataclasses.replace(get_preset("smoke"), batch_size=BATCH)


def create(network, rngs):
  return network(
    SPEC,
    num_classes=10,
    dtype=jnp.float32,
    axis_name="member",
    rngs=rngs,
  )


def schedule(step):
  return 0.5 + 0.1 * jnp.asarray(step, jnp.float32)


def run(step, state):
  random = np.random.default_rng(0)
  losses = []
  for _ in range(STEPS):
    images = random.integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)
    labels = random.integers(0, 10, BATCH, dtype=np.int32)
    state, metrics = step(state, images, labels)
    losses.append(metrics["loss"] if isinstance(metrics, dict) else metrics)
  return state, losses


def ours(mesh):
  """Two steps; and from weights that are half an ulp off, twice."""
  placement = Placement(mesh)
  optimizer = make_optimizer(CONFIG.optimizer, schedule)
  step = make_train_step(
    nnx.eval_shape(lambda: create(EfficientNet, nnx.Rngs(0))),
    optimizer,
    schedule,
    config=CONFIG,
    scale=SCALE,
    placement=placement,
  )
  start = placement.init_state(partial(create, EfficientNet), optimizer, seed=0)
  random = np.random.default_rng(0)

  def moved(x):
    signs = random.choice([-1, 1], x.shape)
    values = np.asarray(x, np.float64) * (1 + half_ulp(x.dtype) * signs)
    return jax.device_put(values.astype(x.dtype), x.sharding)

  runs = []
  for move in (jnp.copy, moved, moved):
    params = jax.tree.map(move, start.variables.params)
    state = jax.tree.map(jnp.copy, start)
    state = state._replace(variables=state.variables._replace(params=params))
    state, losses = run(step, state)
    whole = placement.unpack(state)
    runs.append(jax.device_get((whole.variables, whole.average, losses)))
  return runs


def plain(mesh):
  model = nnx.jit(partial(create, PlainEfficientNet))(nnx.Rngs(0))
  step = make_plain_step(
    nnx.eval_shape(lambda: create(PlainEfficientNet, nnx.Rngs(0))),
    schedule,
    config=CONFIG,
    scale=SCALE,
    mesh=mesh,
  )
  state, losses = run(step, plain_state(model, CONFIG, schedule))
  return jax.device_get((state.variables, state.average, losses))


@pytest.mark.slow
def test_weights_statistics_averages_and_losses_are_ours():
  """Allowed is ten times what half an ulp in the weights does to ours.

  A variance by E[x^2] - E[x]^2 has roundings of E[x]^2 as well. One group: with
  more, the running variances of ours have what lies between them, too.
  """
  mesh = group_mesh(jax.devices()[:4], 4)
  expected, *moved = ours(mesh)
  variables, average, losses = plain(mesh)
  squares = jax.tree.unflatten(
    jax.tree.structure(variables.variances),
    [
      np.square(mean / (1 - MOMENTUM)).max()
      for mean in jax.tree.leaves(variables.means)
    ],
  )

  def check(path, actual, expected, *moved, square=0.0):
    floor = max(np.abs(m - expected).max() for m in moved)
    floor += half_ulp(np.float32) * (np.abs(expected).max() + square)
    error = np.abs(actual - expected).max()
    assert error <= 10 * floor, jax.tree_util.keystr(path)

  def check_variance(path, square, *variances):
    check(path, *variances, square=square)

  check_tree = jax.tree.map_with_path
  runs = [expected, *moved]
  check_tree(check, losses, *(run[2] for run in runs))
  for i, part in enumerate((variables, average)):
    parts = [part, *(run[i] for run in runs)]
    check_tree(check, *(x.params for x in parts))
    check_tree(check, *(x.means for x in parts))
    check_tree(check_variance, squares, *(x.variances for x in parts))
