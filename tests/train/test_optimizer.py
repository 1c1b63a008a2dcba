"""LARS, RMSProp, the parameters they exclude, and optax's common checks."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from podscale.kernels import Packed
from podscale.kernels.lars import lars_update
from podscale.model import efficientnet
from podscale.train.optimizer import (
  LarsState,
  is_batch_norm,
  is_bias_or_batch_norm,
  l2_penalty,
  lars,
  make_optimizer,
  parameter_name,
  rmsprop,
)
from podscale.train.settings.config import OptimizerConfig

U = 2.0**-24  # relative rounding error of float32


def schedule(count):
  return 0.5 * 0.9 ** count.astype(jnp.float32)


def make_lars(learning_rate):
  return lars(learning_rate, weight_decay=1e-2)


def make_scaled(learning_rate):
  return lars(learning_rate, weight_decay=1e-2, nesterov=True, variant="scaled")


both = pytest.mark.parametrize("factory", [make_lars, make_scaled, rmsprop])


def make_params(seed=0):
  rng = np.random.default_rng(seed)

  def draw(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)

  return {
    "conv": {"kernel": draw(3, 3, 2, 8), "bias": draw(8)},
    "norm": {"scale": draw(8), "offset": draw(8)},
    "depthwise": {"filters": draw(3, 3, 8)},
  }


class Net(nnx.Module):
  """Network with the family's parameter names, in a list and nested."""

  def __init__(self):
    self.kernel = nnx.Param(jnp.ones((2, 2)))
    self.blocks = nnx.List([nnx.Dict(filters=nnx.Param(jnp.ones((3, 3, 2))))])
    self.norm = nnx.Dict(
      scale=nnx.Param(jnp.ones(2)), bias=nnx.Param(jnp.ones(2))
    )
    self.offset = nnx.Param(jnp.ones(2))
    self.head = nnx.Dict(bias=nnx.Param(jnp.ones(2)))


@pytest.mark.parametrize(
  "tree",
  [
    lambda: Net(),
    lambda: nnx.state(Net(), nnx.Param),
    lambda: nnx.to_pure_dict(nnx.state(Net(), nnx.Param)),
    lambda: LarsState(0, nnx.state(Net(), nnx.Param)).momenta,
  ],
  ids=["module", "state", "dict", "momenta"],
)
def test_what_is_left_out_of_lars_and_of_l2(tree):
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree())]
  names = {parameter_name(path) for path in paths}
  assert names == {"kernel", "filters", "scale", "offset", "bias"}

  def left_out(predicate):
    return sorted(parameter_name(path) for path in paths if predicate(path))

  batch_norm = ["bias", "offset", "scale"]
  assert left_out(is_batch_norm) == batch_norm
  assert left_out(is_bias_or_batch_norm) == ["bias", *batch_norm]


def test_what_other_libraries_call_biases_and_norms_is_left_out_of_lars():
  # Linen, Haiku, and Equinox, whose norms have a weight and a bias.
  tree = {
    "BatchNorm_0": {"scale": 0, "bias": 0},
    "linear": {"w": 0, "b": 0},
    "norm1": {"weight": 0, "bias": 0},
    "conv": {"weight": 0},
  }
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  kept = [
    jax.tree_util.keystr(path, simple=True, separator=".")
    for path, _ in leaves
    if not is_bias_or_batch_norm(path)
  ]
  assert kept == ["conv.weight", "linear.w"]


def test_b0_has_49_batch_norms_and_33_biases():
  model = nnx.eval_shape(
    lambda: efficientnet("b0", num_classes=1000, rngs=nnx.Rngs(0))
  )
  params = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
  names = Counter(parameter_name(path) for path, _ in params)
  # 16 blocks with two squeeze-excite biases each, and the classifier's.
  assert names["scale"] == 49 and names["bias"] == 49 + 33
  assert set(names) == {"kernel", "filters", "scale", "bias"}
  assert sum(is_batch_norm(path) for path, _ in params) == 2 * 49


def test_names_at_odd_places():
  tree = {"scale": {"kernel": 0}, "bias": [0, {"value": 0}], "kernel": {3: 0}}
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
  names = [parameter_name(path) for path in paths]
  # A layer called "scale" does not make its kernel batch norm's; an index does
  # not hide the name before it.
  assert names == ["bias", "value", "kernel", "kernel"]
  assert parameter_name(()) == ""


def test_l2_is_half_the_squares_of_all_but_batch_norm():
  params = {
    "conv": {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([3.0])},
    "norm": {"scale": jnp.array([10.0]), "offset": jnp.array([10.0])},
    "half": {"filters": jnp.array([4.0], jnp.bfloat16)},
  }
  penalty, gradient = l2_penalty(Packed.of(params))
  assert penalty.dtype == jnp.float32
  assert penalty == (1 + 4 + 9 + 16) / 2
  grads = gradient.unpack()
  assert grads["conv"]["bias"] == 3 and grads["norm"]["scale"] == 0
  penalty, _ = l2_penalty(Packed.of(params), exclude=is_bias_or_batch_norm)
  assert penalty == (1 + 4 + 16) / 2


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("variant", ["tensorflow", "optax", "scaled"])
def test_lars_is_lars_update_bit_for_bit_while_the_rate_changes(
  variant, nesterov
):
  form = dict(variant=variant, nesterov=nesterov)
  params = other = make_params()
  optimizer = lars(schedule, weight_decay=1e-2, **form)
  state = optimizer.init(params)
  momenta = jax.tree.map(jnp.zeros_like, params)

  @jax.jit
  def by_optax(params, grads, state):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  @jax.jit
  def directly(params, grads, momenta, step):
    return lars_update(
      params,
      grads,
      momenta,
      learning_rate=schedule(step),
      weight_decay=1e-2,
      exclude=is_bias_or_batch_norm,
      **form,
    )

  for step in range(5):
    grads = make_params(seed=step + 1)
    params, state = by_optax(params, grads, state)
    other, momenta = directly(other, grads, momenta, jnp.int32(step))
    jax.tree.map(np.testing.assert_array_equal, params, other)
    jax.tree.map(np.testing.assert_array_equal, state.momenta, momenta)
  assert state.count == 5


def test_lars_on_an_nnx_state():
  params = nnx.state(Net(), nnx.Param)
  grads = jax.tree.map(lambda w: 0.5 * w, params)
  optimizer = lars(1.0, weight_decay=0.5, trust_coefficient=0.25)
  updates, state = optimizer.update(grads, optimizer.init(params), params)
  # Raw rate for the bias; for the kernel 0.25 * 2 / (1 + 0.5 * 2) = 1/4 of
  # 0.5 + 0.5 * 1.
  np.testing.assert_allclose(updates["head"]["bias"][...], -0.5)
  np.testing.assert_allclose(updates["kernel"][...], -0.25, rtol=8 * U)
  assert jax.tree.structure(state.momenta) == jax.tree.structure(params)


def test_lars_says_that_it_needs_the_parameters():
  params = make_params()
  optimizer = make_lars(0.1)
  with pytest.raises(ValueError, match="needs the parameters"):
    optimizer.update(params, optimizer.init(params))


def test_rmsprop_first_step_by_hand():
  # m = 0.9 * 1 + 0.1 * 2^2 = 1.3; v = 0.5 * 2 / sqrt(1.3 + 0.001). A mean
  # square from 0, or epsilon outside the root, would give 1.58 or 0.876.
  params = {"kernel": jnp.array([0.0])}
  optimizer = rmsprop(0.5)
  grads = {"kernel": jnp.array([2.0])}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  np.testing.assert_allclose(updates["kernel"], -1 / 1.301**0.5, rtol=8 * U)


def test_rmsprop_equals_tensorflow_1_over_100_steps():
  steps, decay, momentum, epsilon = 100, 0.8, 0.7, 1e-2
  params = {"kernel": make_params()["conv"]["kernel"]}
  optimizer = rmsprop(schedule, decay, momentum, epsilon)
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  w = np.float64(params["kernel"])
  m, v = np.ones(w.shape), np.zeros(w.shape)
  v_max = w_max = 0.0
  for step in range(steps):
    grads = {"kernel": make_params(seed=step + 1)["conv"]["kernel"]}
    updates, state = update(grads, state, params)
    params = optax.apply_updates(params, updates)
    g = np.float64(grads["kernel"])
    m = decay * m + (1 - decay) * g**2
    v = momentum * v + 0.5 * 0.9**step * g / np.sqrt(m + epsilon)
    w = w - v
    v_max, w_max = max(v_max, np.abs(v).max()), max(w_max, np.abs(w).max())
  # m is 3 roundings a step and forgets within 1 / (1 - decay) = 5, halved by
  # the root; the rate, 0.9 in float32 to the power of up to 100, 100; the rest
  # 6. v forgets within 1 / (1 - momentum) < 4. w adds all of it up, but what v
  # brings shrinks with the rate: ten of the first.
  v_error = 4 * (8 + 100 + 6) * U * v_max
  np.testing.assert_allclose(
    params["kernel"], w, rtol=0, atol=steps * U * w_max + 10 * v_error
  )


@pytest.mark.parametrize(
  "config, expected",
  [
    (
      OptimizerConfig(
        name="lars",
        momentum=0.8,
        lars_weight_decay=0.03,
        lars_trust_coefficient=0.02,
        lars_epsilon=0.1,
      ),
      lambda: lars(
        schedule,
        weight_decay=0.03,
        trust_coefficient=0.02,
        momentum=0.8,
        epsilon=0.1,
      ),
    ),
    (
      OptimizerConfig(
        name="rmsprop", momentum=0.8, rmsprop_decay=0.7, rmsprop_epsilon=0.2
      ),
      lambda: rmsprop(schedule, decay=0.7, momentum=0.8, epsilon=0.2),
    ),
  ],
)
def test_every_setting_reaches_the_optimizer(config, expected):
  def run(optimizer):
    params = make_params()
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for seed in (1, 2):
      updates, state = update(make_params(seed), state, params)
      params = optax.apply_updates(params, updates)
    return params

  def run_packed(optimizer):
    params = Packed.of(make_params())
    state = optimizer.init(params)
    for step, seed in enumerate((1, 2)):
      grads = Packed.of(make_params(seed))
      params, state = jax.jit(optimizer.update)(
        params, grads, state, None, schedule(jnp.int32(step))
      )
    return params.unpack()

  got = run_packed(make_optimizer(config))
  # The norms are summed in another order.
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=16 * U, atol=16 * U),
    got,
    run(expected()),
  )
  # The loss applies l2; the optimizer ignores it.
  same = dataclasses.replace(config, l2=1.0)
  other = run_packed(make_optimizer(same))
  jax.tree.map(np.testing.assert_array_equal, got, other)


# The checks that optax runs on every optimizer (contrib/_common_test.py).


@both
def test_no_recompilation_and_a_stable_state(factory):
  optimizer = factory(schedule)
  params = make_params()
  traces = []

  @jax.jit
  def update(grads, state, params):
    traces.append(None)
    return optimizer.update(grads, state, params)

  state = optimizer.init(params)
  types = jax.tree.map(jax.typeof, state)
  for _ in range(3):
    updates, state = update(params, state, params)
    params = optax.apply_updates(params, updates)
  assert len(traces) == 1
  assert jax.tree.map(jax.typeof, state) == types


@both
def test_extra_arguments_are_tolerated(factory):
  optimizer = optax.with_extra_args_support(factory(0.1))
  params = make_params()
  state = optimizer.init(params)
  want, _ = optimizer.update(params, state, params)
  got, _ = optimizer.update(params, state, params, loss=1.0)
  jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize(
  "factory, settings",
  [(lars, {"weight_decay": 1e-2}), (rmsprop, {})],
)
@pytest.mark.parametrize("learning_rate", [0.1, schedule])
def test_inject_hyperparams(factory, settings, learning_rate):
  static = ("exclude", "nesterov") if factory is lars else ()
  injected = optax.inject_hyperparams(factory, static_args=static)(
    learning_rate=learning_rate, **settings
  )
  plain = factory(learning_rate, **settings)
  params = make_params()
  states = injected.init(params), plain.init(params)
  for _ in range(2):
    got, injected_state = jax.jit(injected.update)(params, states[0], params)
    want, plain_state = jax.jit(plain.update)(params, states[1], params)
    states = injected_state, plain_state
    # The rate is an argument here and a constant there, which XLA may fold: two
    # roundings.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=4 * U), got, want
    )


@both
# MultiSteps itself divides a float by an integer.
@jax.numpy_dtype_promotion("standard")
def test_multi_steps(factory):
  params, first, second = (make_params(seed) for seed in range(3))
  multi = optax.MultiSteps(factory(schedule), every_k_schedule=2)
  update = jax.jit(multi.update)
  updates, state = update(first, multi.init(params), params)
  assert all((u == 0).all() for u in jax.tree.leaves(updates))
  updates, state = update(second, state, params)
  plain = factory(schedule)
  mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
  want, _ = jax.jit(plain.update)(mean, plain.init(params), params)
  # MultiSteps keeps a running mean, a few roundings of values up to 5; the
  # updates follow their gradients with a factor of at most the rate, 0.5.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=16 * U, atol=0.5 * 5 * 4 * U
    ),
    updates,
    want,
  )


@both
def test_masked(factory):
  params = make_params()
  mask = {"conv": True, "norm": False, "depthwise": True}
  masked = optax.masked(factory(0.1), mask)
  got, _ = masked.update(params, masked.init(params), params)
  plain = factory(0.1)
  want, _ = plain.update(params, plain.init(params), params)
  for name in params:
    expected = want[name] if mask[name] else params[name]
    jax.tree.map(np.testing.assert_array_equal, got[name], expected)


@both
def test_state_is_sharded_like_the_parameters(factory):
  mesh = jax.make_mesh(
    (8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,)
  )
  sharding = NamedSharding(mesh, P(None, "x"))
  optimizer = factory(0.1)
  with jax.set_mesh(mesh):
    params = {"kernel": jax.device_put(jnp.ones((2, 8, 4)), sharding)}
    state = optimizer.init(params)
    updates, state1 = jax.jit(optimizer.update)(params, state, params)
  tensors = [x for x in jax.tree.leaves(state) if x.ndim]
  assert tensors and all(x.sharding.spec[:2] == (None, "x") for x in tensors)
  assert updates["kernel"].sharding.spec[:2] == (None, "x")
  assert jax.tree.map(jax.typeof, state1) == jax.tree.map(jax.typeof, state)
  # The norms cover whole tensors, not shards.
  whole = {"kernel": jnp.ones((2, 8, 4))}
  want, _ = optimizer.update(whole, optimizer.init(whole), whole)
  np.testing.assert_allclose(updates["kernel"], want["kernel"], rtol=8 * U)


@both
def test_bfloat16_parameters(factory):
  params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), make_params())
  optimizer = factory(0.1)
  updates, state = optimizer.update(params, optimizer.init(params), params)
  new = optax.apply_updates(params, updates)
  assert all(w.dtype == jnp.bfloat16 for w in jax.tree.leaves(new))
  if isinstance(state, LarsState):
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(state.momenta))


@both
def test_abstract_parameters(factory):
  params = jax.eval_shape(make_params)
  state = jax.eval_shape(factory(schedule).init, params)
  assert len(jax.tree.leaves(state)) >= len(jax.tree.leaves(params))


def test_packed_weights_are_refused():
  params = Packed.of(make_params())
  optimizer = make_lars(0.1)
  with pytest.raises(ValueError, match="unpacked params to lars_steps"):
    optimizer.update(params, optimizer.init(params), params)
