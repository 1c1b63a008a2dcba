import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from support import oracle
from support.tolerance import assert_accurate

from podscale.collectives import (
  ALL_DEVICES,
  MEMBER,
  device_varying,
  group_mesh,
)
from podscale.model import BatchNorm

DEVICES, CHANNELS = 8, 6
MOMENTUM = 0.75  # exact in float32

# For programs that run once: compiling is most of their time.
quick_jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def exact(x, gamma, beta, dy, *, activation=None):
  """Compute batch norm and its gradients in float64, from mean 0, var 1."""
  shape = x.shape
  x, dy = (a.reshape(1, -1, 1, shape[-1]) for a in (x, dy))
  moments = oracle.moments(x)
  affine = oracle.batch_norm_affine(
    **moments, gamma=gamma, beta=beta, epsilon=1e-3
  )
  y = oracle.batch_norm(x, **affine, activation=activation)["y"]
  into_affine = oracle.batch_norm_gradients(
    x, **affine, dy=dy, dmean=0, activation=activation
  )
  dx = into_affine.pop("dx")
  gradients = oracle.batch_norm_affine_gradients(
    **moments, gamma=gamma, beta=beta, epsilon=1e-3, **into_affine
  )
  dx = dx + oracle.moments_gradient(x, gradients["dmean"], gradients["dm2"])
  variance = moments["m2"] / moments["count"]  # biased
  return {
    "y": y.reshape(shape),
    "mean": (1 - MOMENTUM) * moments["mean"],
    "var": MOMENTUM + (1 - MOMENTUM) * variance,
    "dx": dx.reshape(shape),
    "dscale": gradients["dgamma"],
    "dbias": gradients["dbeta"],
  }


def plain(x, gamma, beta, dy, *, activation=None):
  """Compute the same in ordinary JAX, in x's dtype and float32."""
  axes = tuple(range(x.ndim - 1))
  functions = {None: lambda u: u, "silu": jax.nn.silu, "relu": jax.nn.relu}

  def loss(x, gamma, beta):
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axes, keepdims=True)
    var = jnp.mean((wide - mean) ** 2, axes, keepdims=True)
    gamma, beta = (a.reshape(mean.shape) for a in (gamma, beta))
    y = (wide - mean) * jax.lax.rsqrt(var + 1e-3) * gamma + beta
    y = functions[activation](y).astype(x.dtype)
    total = jnp.sum((y * dy).astype(jnp.float32))
    return total, (y, mean.reshape(-1), var.reshape(-1))

  (dx, dscale, doffset), (y, mean, var) = jax.grad(
    loss, argnums=(0, 1, 2), has_aux=True
  )(x, gamma, beta)
  return {
    "y": y,
    "mean": (1 - MOMENTUM) * mean,
    "var": MOMENTUM + (1 - MOMENTUM) * var,
    "dx": dx,
    "dscale": dscale,
    "dbias": doffset,
  }


def ours(norm, x, dy, **options):
  """Compute the same with a BatchNorm, without changing it."""
  graph, params, stats = nnx.split(norm, nnx.Param, nnx.BatchStat)

  def loss(params, x):
    norm = nnx.merge(graph, params, stats, copy=True)
    y = norm(x, **options)
    total = jnp.sum((y * dy).astype(jnp.float32))
    return total, (y, norm.mean[...], norm.var[...])

  (dparams, dx), (y, mean, var) = jax.grad(loss, argnums=(0, 1), has_aux=True)(
    params, x
  )
  gradients = {f"d{name}": leaf[...] for name, leaf in dparams.items()}
  return {"y": y, "mean": mean, "var": var, "dx": dx, **gradients}


def inputs(shape, dtype=np.float32, seed=0):
  rng = np.random.default_rng(seed)
  gamma = np.float32(rng.uniform(0.5, 2, shape[-1]))
  beta = np.float32(rng.normal(size=shape[-1]))
  x = jnp.asarray(0.5 + 2 * rng.normal(size=shape), dtype)
  dy = jnp.asarray(rng.normal(size=shape), dtype)
  return x, gamma, beta, dy


def with_affine(gamma, beta, **options):
  norm = BatchNorm(len(gamma), momentum=MOMENTUM, **options)
  norm.scale[...], norm.bias[...] = jnp.asarray(gamma), jnp.asarray(beta)
  return norm


def test_defaults_are_efficientnets():
  norm = BatchNorm(CHANNELS)
  assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)
  assert norm.axis_name is None
  assert not norm.use_running_average
  ones, zeros = np.ones(CHANNELS), np.zeros(CHANNELS)
  for variable, kind, value in (
    (norm.scale, nnx.Param, ones),
    (norm.bias, nnx.Param, zeros),
    (norm.mean, nnx.BatchStat, zeros),
    (norm.var, nnx.BatchStat, ones),
  ):
    assert type(variable) is kind
    assert variable.dtype == jnp.float32
    assert (np.asarray(variable) == value).all()


@pytest.mark.parametrize(
  ("shape", "dtype", "activation"),
  [
    ((4, 7, 5, CHANNELS), jnp.float32, None),
    ((4, 7, 5, CHANNELS), jnp.bfloat16, "silu"),
    ((48, CHANNELS), jnp.float32, "silu"),
    ((48, CHANNELS), jnp.bfloat16, None),
  ],
)
def test_equals_float64_with_all_gradients(shape, dtype, activation):
  arrays = inputs(shape, dtype)
  norm = with_affine(arrays[1], arrays[2])
  result = quick_jit(functools.partial(ours, norm, activation=activation))(
    arrays[0], arrays[3]
  )
  assert result["y"].dtype == result["dx"].dtype == dtype
  assert all(result[k].dtype == jnp.float32 for k in ("mean", "var", "dscale"))
  assert_accurate(
    result,
    quick_jit(functools.partial(plain, activation=activation))(*arrays),
    functools.partial(exact, activation=activation),
    *arrays,
  )


def test_running_update_is_keras():
  # Means 1 and 5, biased variances 4 and 0, in numbers exact in float32.
  x = jnp.array([[-1.0, 5.0], [3.0, 5.0]])
  norm = BatchNorm(2, momentum=0.75)
  norm(x)
  assert norm.mean[...].tolist() == [0.25 * 1, 0.25 * 5]
  assert norm.var[...].tolist() == [0.75 + 0.25 * 4, 0.75]
  norm(x)
  assert norm.mean[...].tolist() == [0.4375, 2.1875]
  assert norm.var[...].tolist() == [0.75 * 1.75 + 1, 0.5625]


def test_eval_uses_running_statistics_and_keeps_them():
  x, gamma, beta, _ = inputs((16, CHANNELS))
  norm = with_affine(gamma, beta)
  norm.mean[...] = jnp.arange(CHANNELS, dtype=jnp.float32)
  norm.var[...] = jnp.arange(1, CHANNELS + 1, dtype=jnp.float32)
  norm.eval()
  y = norm(x)
  scale = np.float64(gamma) / np.sqrt(np.arange(1, CHANNELS + 1) + 1e-3)
  mean = np.arange(CHANNELS)
  # Roundings of x * scale, of offset = beta - mean * scale and of their sum;
  # scale itself has a few (rsqrt, the sum, the product).
  terms = np.abs(x) * scale + np.abs(beta) + 2 * mean * scale
  error = np.abs(y - ((np.float64(x) - mean) * scale + beta))
  assert (error <= 6 * 2.0**-24 * terms).all()
  assert norm.mean[...].tolist() == list(range(CHANNELS))
  assert norm.var[...].tolist() == list(range(1, CHANNELS + 1))
  norm.train()
  norm(x)
  assert norm.mean[1] != 1


def test_epsilon_is_added_to_the_variance():
  norm = BatchNorm(1, epsilon=3.0)
  # Mean 0 and variance 1: every value is halved.
  assert norm(jnp.array([[-1.0], [1.0]])).tolist() == [[-0.5], [0.5]]


class Foreign(nnx.Module):
  """Network of flax layers around podscale's batch norm."""

  def __init__(self, rngs):
    self.first = nnx.Linear(4, CHANNELS, use_bias=False, rngs=rngs)
    self.norm = BatchNorm(CHANNELS, momentum=MOMENTUM)

  def __call__(self, x):
    return self.norm(self.first(x), activation="relu")


@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (40, 4)], ids=["NHWC", "NC"])
def test_in_a_foreign_model(shape):
  rng = np.random.default_rng(1)
  model = nnx.eval_shape(lambda: Foreign(nnx.Rngs(0)))
  x = np.float32(rng.normal(size=shape))
  kernel = np.float32(rng.normal(size=(4, CHANNELS)))
  gamma = np.float32(rng.uniform(0.5, 2, CHANNELS))
  beta = np.float32(rng.normal(size=CHANNELS))
  dy = np.float32(rng.normal(size=(*shape[:-1], CHANNELS)))
  model.first.kernel.set_value(jnp.asarray(kernel))
  model.norm = with_affine(gamma, beta)

  @nnx.jit
  def step(model):
    def loss(model):
      y = model(jnp.asarray(x))
      return jnp.sum(y * dy), y

    return nnx.grad(loss, has_aux=True)(model)

  gradients, y = step(model)
  result = {
    "y": y,
    "mean": model.norm.mean[...],
    "var": model.norm.var[...],
    "dscale": gradients["norm"]["scale"][...],
    "dbias": gradients["norm"]["bias"][...],
    "dkernel": gradients["first"]["kernel"][...],
  }

  def with_kernel(batch_norm, x, kernel, *rest):
    outcome = batch_norm(x @ kernel, *rest, activation="relu")
    dkernel = x.reshape(-1, 4).T @ outcome.pop("dx").reshape(-1, CHANNELS)
    return {**outcome, "dkernel": dkernel}

  arrays = (x, kernel, gamma, beta, dy)
  assert_accurate(
    result,
    quick_jit(functools.partial(with_kernel, plain))(*arrays),
    functools.partial(with_kernel, exact),
    *arrays,
  )

  model.eval()
  before = model.norm.mean[...]
  evaluated = nnx.jit(lambda model, x: model(x))(model, jnp.asarray(x))
  assert (model.norm.mean[...] == before).all()
  assert not np.allclose(evaluated, y)


@pytest.mark.parametrize("group_size", [1, 2, 4, 8])
def test_group_equals_one_device_on_its_batch(group_size):
  arrays = inputs((DEVICES * 2, 3, 3, CHANNELS))
  x, gamma, beta, dy = arrays
  norm = with_affine(gamma, beta, axis_name=MEMBER)
  graph, params, stats = nnx.split(norm, nnx.Param, nnx.BatchStat)

  def device_step(params, stats, x, dy):
    params, stats = device_varying((params, stats))
    outcome = ours(nnx.merge(graph, params, stats, copy=True), x, dy)
    own = {k: v for k, v in outcome.items() if k not in ("y", "dx")}
    return outcome["y"], outcome["dx"], jax.tree.map(lambda v: v[None], own)

  step = jax.shard_map(
    device_step,
    mesh=group_mesh(group_size=group_size),
    in_specs=(P(), P(), P(ALL_DEVICES), P(ALL_DEVICES)),
    out_specs=P(ALL_DEVICES),
  )
  y, dx, own = jax.tree.map(np.asarray, quick_jit(step)(params, stats, x, dy))

  single = quick_jit(functools.partial(ours, with_affine(gamma, beta)))
  for first in range(0, DEVICES, group_size):
    devices = slice(first, first + group_size)
    rows = slice(2 * first, 2 * (first + group_size))
    for name in ("mean", "var"):
      assert len(np.unique(own[name][devices], axis=0)) == 1
    result = {
      "y": y[rows],
      "dx": dx[rows],
      "mean": own["mean"][first],
      "var": own["var"][first],
      # Each device has the gradient of its own images.
      "dscale": own["dscale"][devices].sum(axis=0),
      "dbias": own["dbias"][devices].sum(axis=0),
    }
    of_group = (x[rows], gamma, beta, dy[rows])
    assert_accurate(result, single(x[rows], dy[rows]), exact, *of_group)
  if group_size < DEVICES:
    assert len(np.unique(own["mean"], axis=0)) == DEVICES // group_size


def test_evaluation_needs_no_collective():
  norm = BatchNorm(CHANNELS, axis_name=MEMBER, use_running_average=True)
  # The axis does not exist here, so a collective would raise.
  assert norm(jnp.ones((2, CHANNELS))).shape == (2, CHANNELS)


def test_second_call_does_not_recompile():
  traces = []

  @nnx.jit
  def step(norm, x):
    traces.append(x.shape)
    return norm(x)

  norm = BatchNorm(CHANNELS)
  for seed in range(3):
    step(norm, inputs((4, CHANNELS), seed=seed)[0])
  assert len(traces) == 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [1, CHANNELS - 1])
def test_channels_must_fit(channels, training):
  norm = BatchNorm(CHANNELS, use_running_average=not training)
  with pytest.raises(ValueError, match=rf"\({channels},\).*\({CHANNELS},\)"):
    norm(jnp.ones((4, channels)))
  # A failed call leaves the running statistics as they were.
  assert (norm.mean[...] == 0).all()
  assert (norm.var[...] == 1).all()


def test_dtype_must_be_floating():
  with pytest.raises(ValueError, match="floating dtype, got uint8"):
    BatchNorm(CHANNELS)(jnp.ones((4, CHANNELS), jnp.uint8))


def test_state_of_flax_loads_and_gives_its_results():
  theirs = nnx.BatchNorm(CHANNELS, rngs=nnx.Rngs(0))
  x, gamma, beta, _ = inputs((16, CHANNELS))
  theirs.scale[...], theirs.bias[...] = jnp.asarray(gamma), jnp.asarray(beta)
  theirs(x)
  norm = BatchNorm(CHANNELS, epsilon=1e-5, rngs=nnx.Rngs(0))
  nnx.update(norm, nnx.state(theirs))
  for running in (True, False):
    want = theirs(x, use_running_average=running)
    y = norm(x, use_running_average=running)
    # Both round about ten times, on values below 10.
    np.testing.assert_allclose(y, want, rtol=0, atol=100 * 2.0**-24)


def test_dtype_is_the_results():
  norm = BatchNorm(2, dtype=jnp.float32)
  assert norm(jnp.ones((4, 2), jnp.bfloat16)).dtype == jnp.float32


def test_becomes_a_linen_module():
  linen = nnx.bridge.to_linen(BatchNorm, CHANNELS, momentum=0.5)
  x, *_ = inputs((16, CHANNELS))
  variables = linen.init(jax.random.key(0), x)
  y, updated = linen.apply(variables, x, mutable=["batch_stats"])
  assert y.shape == x.shape
  assert set(updated["batch_stats"]) == {"mean", "var"}
