import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from lars_oracle import lars_step

from podscale.kernels.lars import lars_update
from podscale.kernels.lars.xla import safe_norm

U = 2.0**-24  # float32 rounds to within this share of a number


def by_name(path, leaf):
  del leaf
  return path[-1].key == "bias"


def zeros(tree):
  return jax.tree.map(jnp.zeros_like, tree)


def make_case(seed=0):
  """Float32 parameters and a way to draw their gradients, per name."""
  rng = np.random.default_rng(seed)
  shapes = {
    "kernel": (3, 3, 4, 8),
    "zero_weights": (5, 7),
    "zero_grads": (5, 7),
    "huge_grads": (6, 6),
    "tiny_grads": (6, 6),
    "huge_weights": (40,),
    "tiny_weights": (40,),
    "scalar": (),
    "bias": (8,),
  }
  weights = {k: rng.standard_normal(s) for k, s in shapes.items()}
  weights["zero_weights"] *= 0
  weights["huge_weights"] *= 1e22
  weights["tiny_weights"] *= 1e-25

  def draw():
    grads = {k: rng.standard_normal(s) for k, s in shapes.items()}
    grads["zero_grads"] *= 0
    grads["huge_grads"] *= 1e25
    grads["tiny_grads"] *= 1e-25
    return {k: np.asarray(g, np.float32) for k, g in grads.items()}

  return {k: np.asarray(w, np.float32) for k, w in weights.items()}, draw


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(
  "weight_decay, epsilon", [(1e-2, 0.0), (0.0, 0.0), (1e-5, 1e-3)]
)
def test_200_steps_equal_the_oracle(weight_decay, epsilon, nesterov):
  steps = 200
  params, draw = make_case()
  want = {k: (np.float64(w), np.zeros(w.shape)) for k, w in params.items()}
  largest = {k: np.zeros(2) for k in params}
  update = jax.jit(
    lambda params, grads, momenta, learning_rate: lars_update(
      params,
      grads,
      momenta,
      learning_rate=learning_rate,
      weight_decay=weight_decay,
      epsilon=epsilon,
      nesterov=nesterov,
      exclude=by_name,
    )
  )
  momenta = zeros(params)
  for step in range(steps):
    # Warmup from 0, then down; a power of two so that float32 holds it.
    rate = min(step, steps - step) / 64
    grads = draw()
    params, momenta = update(params, grads, momenta, rate)
    for name, (w, v) in want.items():
      want[name] = w, v = lars_step(
        w,
        grads[name],
        v,
        learning_rate=rate,
        weight_decay=weight_decay,
        epsilon=epsilon,
        nesterov=nesterov,
        excluded=name == "bias",
      )
      largest[name] = np.maximum(
        largest[name], [np.abs(w).max(), np.abs(v).max()]
      )
  for name, (w, v) in want.items():
    w_max, v_max = largest[name]
    # A step is some 16 roundings away from exact (two norms of a pairwise sum,
    # the ratio, the decay, two products), v's own update two more; v forgets
    # with 1 / (1 - momentum) = 10. w is rounded once a step and adds up the
    # errors of every v, twice over with nesterov.
    v_error = 10 * 18 * U * v_max
    w_error = steps * (U * w_max + 2 * v_error)
    np.testing.assert_allclose(momenta[name], v, rtol=0, atol=v_error)
    np.testing.assert_allclose(params[name], w, rtol=0, atol=w_error)
    assert params[name].dtype == momenta[name].dtype == jnp.float32


def test_one_step_by_hand():
  # |w| = |g| = 5, so trust = 0.1 * 5 / (5 + 0.1 * 5) = 1 / 11.
  params, momenta = {"kernel": jnp.array([3.0, 4.0])}, {"kernel": jnp.zeros(2)}
  settings = dict(weight_decay=0.1, trust_coefficient=0.1)
  params, momenta = lars_update(
    params,
    {"kernel": jnp.array([0.0, 5.0])},
    momenta,
    learning_rate=11.0,
    **settings,
  )
  np.testing.assert_allclose(momenta["kernel"], [0.3, 5.4], rtol=8 * U)
  np.testing.assert_allclose(params["kernel"], [2.7, -1.4], rtol=8 * U)
  # The rate is inside the momentum: at rate 0 the next step still moves.
  params, momenta = lars_update(
    params,
    {"kernel": jnp.array([1.0, 1.0])},
    momenta,
    learning_rate=0.0,
    **settings,
  )
  np.testing.assert_allclose(momenta["kernel"], [0.27, 4.86], rtol=8 * U)
  np.testing.assert_allclose(params["kernel"], [2.43, -6.26], rtol=8 * U)


def test_a_zero_norm_takes_the_plain_rate():
  params = {"a": jnp.zeros(3), "b": jnp.ones(4)}
  grads = {"a": jnp.ones(3), "b": jnp.zeros(4)}
  params, _ = lars_update(
    params, grads, zeros(params), learning_rate=0.5, weight_decay=0.25
  )
  np.testing.assert_array_equal(params["a"], np.full(3, -0.5))
  np.testing.assert_array_equal(params["b"], np.full(4, 1 - 0.5 * 0.25))


@pytest.mark.parametrize("size", [1e-37, 1e-25, 1e-3, 1.0, 1e19, 1e25, 1e35])
def test_norm_is_right_at_any_size(size):
  x = size * np.random.default_rng(1).standard_normal((37, 41))
  x = x.astype(np.float32)
  # At 1e-37 the smallest of the values are subnormal and may count as zero:
  # they are below 2^-126, so a share of (2^-126 / 1e-37)^2 < 2% each of the
  # squares could go only if all were; those that are here are counted.
  kept = np.where(np.abs(x) < 2.0**-126, 0, np.float64(x))
  whole, least = np.linalg.norm(np.float64(x)), np.linalg.norm(kept)
  norm = float(jax.jit(safe_norm)(x))
  # A pairwise sum of 1,517 squares: about log2(1517) + 4 roundings, halved by
  # the root.
  assert least * (1 - 8 * U) <= norm <= whole * (1 + 8 * U)


@pytest.mark.parametrize("x", [np.zeros((3, 2)), np.zeros((0, 4))])
def test_norm_of_nothing_is_zero(x):
  assert float(safe_norm(jnp.asarray(x, jnp.float32))) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_shows(bad):
  params = {"kernel": jnp.ones(3)}
  grads = {"kernel": jnp.array([1.0, bad, 1.0])}
  params, _ = lars_update(
    params, grads, zeros(params), learning_rate=1.0, weight_decay=0.0
  )
  assert not np.isfinite(params["kernel"]).all()


def test_excluded_leaves_get_the_raw_rate_and_no_decay():
  seen = []

  def exclude(path, leaf):
    seen.append((jax.tree_util.keystr(path), leaf.shape))
    return leaf.ndim == 1

  params = {"fc": {"bias": jnp.full(3, 2.0), "kernel": jnp.ones((2, 3))}}
  grads = jax.tree.map(jnp.ones_like, params)
  new, momenta = lars_update(
    params,
    grads,
    zeros(params),
    learning_rate=0.5,
    weight_decay=0.25,
    exclude=exclude,
  )
  assert seen == [("['fc']['bias']", (3,)), ("['fc']['kernel']", (2, 3))]
  np.testing.assert_array_equal(new["fc"]["bias"], np.full(3, 1.5))
  np.testing.assert_array_equal(momenta["fc"]["bias"], np.full(3, 0.5))
  assert (new["fc"]["kernel"] > 0.99).all()  # the trust ratio is near 0.001


def test_bfloat16_parameters_are_updated_in_float32():
  params = {"kernel": jnp.linspace(1, 2, 64, dtype=jnp.bfloat16)}
  grads = {"kernel": jnp.linspace(-1, 1, 64, dtype=jnp.bfloat16)}
  momenta = {"kernel": jnp.zeros(64, jnp.float32)}
  new, momenta = lars_update(
    params, grads, momenta, learning_rate=100.0, weight_decay=0.01
  )
  w, v = lars_step(
    params["kernel"],
    grads["kernel"],
    np.zeros(64),
    learning_rate=100.0,
    weight_decay=0.01,
  )
  assert new["kernel"].dtype == jnp.bfloat16
  assert momenta["kernel"].dtype == jnp.float32
  scale = np.abs(v).max()
  np.testing.assert_allclose(momenta["kernel"], v, rtol=0, atol=18 * U * scale)
  # One rounding to bfloat16's 8 bits.
  np.testing.assert_allclose(
    new["kernel"].astype(jnp.float32), w, rtol=2.0**-8, atol=18 * U * scale
  )


def test_same_under_shard_map_and_unchanged_in_what_varies():
  mesh = jax.make_mesh((8,), ("device",))
  rng = np.random.default_rng(2)
  params = {
    "kernel": rng.standard_normal((4, 6)).astype(np.float32),
    "bias": rng.standard_normal(6).astype(np.float32),
  }
  grads = jax.tree.map(lambda w: w[::-1].copy(), params)
  settings = dict(weight_decay=1e-3, exclude=by_name)

  def update(params, grads, momenta, rate):
    return lars_update(params, grads, momenta, learning_rate=rate, **settings)

  sharded = jax.shard_map(
    update, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=True
  )
  rate = jnp.float32(3.0)
  args = params, grads, zeros(params), rate
  got, want = jax.jit(sharded)(*args), jax.jit(update)(*args)
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_changed_rate_does_not_recompile():
  params = {"kernel": jnp.ones((2, 2))}
  traces = []

  @jax.jit
  def update(params, momenta, rate):
    traces.append(None)
    return lars_update(
      params, params, momenta, learning_rate=rate, weight_decay=0.1
    )

  momenta = zeros(params)
  for rate in (0.0, 0.5, 1.0):
    params, momenta = update(params, momenta, rate)
  assert len(traces) == 1


def call(params, grads=None, momenta=None, **settings):
  settings = {"learning_rate": 0.1, "weight_decay": 0.0} | settings
  return lars_update(
    params,
    params if grads is None else grads,
    params if momenta is None else momenta,
    **settings,
  )


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (
      {"grads": {"fc": {"kernel": np.ones((2, 3), np.float32)}}},
      "grads has no leaf at ['fc']['bias']",
    ),
    (
      {"momenta": {"fc": {}}},
      "momenta has no leaf at ['fc']['bias']",
    ),
    (
      {
        "grads": {
          "fc": {
            "bias": np.ones(3, np.float32),
            "kernel": np.ones((3, 2), np.float32),
          }
        }
      },
      "grads has shape (3, 2) at ['fc']['kernel'], params has (2, 3)",
    ),
    (
      {
        "momenta": {
          "fc": {
            "bias": np.ones(3, np.int32),
            "kernel": np.ones((2, 3), np.float32),
          }
        }
      },
      "momenta at ['fc']['bias'] is int32",
    ),
    ({"learning_rate": -0.5}, "learning_rate must not be below 0, got -0.5"),
    ({"learning_rate": float("nan")}, "learning_rate must not be below 0"),
    ({"learning_rate": np.ones(2)}, "learning_rate must be a scalar"),
    ({"weight_decay": -1}, "weight_decay must not be below 0, got -1"),
    ({"momentum": -0.1}, "momentum must not be below 0"),
    ({"implementation": "cuda"}, "unknown implementation 'cuda'"),
  ],
)
def test_mistakes_are_named(kwargs, message):
  params = {
    "fc": {
      "bias": np.ones(3, np.float32),
      "kernel": np.ones((2, 3), np.float32),
    }
  }
  with pytest.raises(ValueError, match=re.escape(message)):
    call(params, **kwargs)


def test_more_mistakes_in_trees():
  one = np.ones(2, np.float32)
  with pytest.raises(ValueError, match=re.escape("a leaf at ['b'], params")):
    call({"a": one}, {"a": one, "b": one})
  with pytest.raises(ValueError, match=re.escape("params at [0] is int32")):
    call([np.ones(2, np.int32)], [one], [one])
  with pytest.raises(ValueError, match="grads is a PyTreeDef"):
    call([one], (one,))


def test_the_tpu_kernel_is_not_there_yet():
  with pytest.raises(NotImplementedError, match="pallas_tpu"):
    call({"a": np.ones(2, np.float32)}, implementation="pallas_tpu")
