import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from podscale.collectives import (
  ALL_DEVICES,
  device_varying,
  group_mesh,
  mean_gradients,
)

ROUNDOFF = 2.0**-24
EACH = P(ALL_DEVICES)


def sharded(function, group_size=2, in_specs=EACH, **options):
  return jax.jit(
    jax.shard_map(
      function,
      mesh=group_mesh(group_size=group_size),
      in_specs=in_specs,
      out_specs=P(),
      **options,
    )
  )


def loss(w, x, target):
  return jnp.mean((x @ w - target) ** 2)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("group_size", [1, 2, 4, 8])
def test_equals_one_device_on_the_concatenated_batch(group_size, check_vma):
  generator = np.random.default_rng(0)
  rows, features = 64, 7
  x = generator.normal(size=(rows, features)).astype(np.float32)
  target = generator.normal(size=rows).astype(np.float32)
  w = generator.normal(size=features).astype(np.float32)

  def step(w, x, target):
    value, grads = jax.value_and_grad(loss)(device_varying(w), x, target)
    return mean_gradients((value, grads))

  value, grads = sharded(
    step,
    group_size,
    in_specs=(P(), EACH, EACH),
    check_vma=check_vma,
  )(w, x, target)

  x, w, target = np.float64(x), np.float64(w), np.float64(target)
  residual = x @ w - target
  # The error of a residual is features + 1 roundings of its terms; a mean of
  # `rows` products adds at most one rounding per term.
  terms = (np.abs(x) @ np.abs(w) + np.abs(target)).max()
  off = (features + 1) * ROUNDOFF * terms
  largest = np.abs(residual).max()
  bound = 2 * np.abs(x).max() * (off + rows * ROUNDOFF * largest)
  assert (np.abs(grads - 2 * x.T @ residual / rows) <= bound).all()
  bound = 2 * largest * off + rows * ROUNDOFF * largest**2
  assert abs(value - (residual**2).mean()) <= bound


def test_sums_in_float32_and_keeps_the_dtype(lowered_collectives):
  # In bfloat16, 256 + 1 is 256: the ones would vanish one after the other. XLA
  # on CPU sums in float32 anyway, so the test also checks the program.
  values = np.array([256, 1, 1, 1, 1, 1, 1, 2], np.float32)
  tree = {"low": values.astype(jnp.bfloat16), "high": values}
  means = sharded(mean_gradients)(tree)
  assert means["low"].dtype == jnp.bfloat16
  assert means["high"].dtype == jnp.float32
  assert lowered_collectives(sharded(mean_gradients), tree) == 2 * [
    ("all_reduce", "1xf32")
  ]
  assert means["low"].tolist() == means["high"].tolist() == [33.0]


def test_one_all_reduce_for_all_leaves(all_reduces):
  tree = {f"p{i}": np.zeros((8, 3, 5 + i), np.float32) for i in range(12)}
  tree["bf16"] = np.zeros((8, 4), jnp.bfloat16)
  assert all_reduces(sharded(mean_gradients), tree) == 1


def test_gradients_that_are_already_summed_are_refused():
  def step(w, x, target):
    return mean_gradients({"w": jax.grad(loss)(w, x, target)})

  in_specs = (P(), EACH, EACH)
  with pytest.raises(
    ValueError, match=r"\['w'\] is the same .* along \('group', 'member'\)"
  ):
    sharded(step, in_specs=in_specs)(
      np.zeros(2, np.float32),
      np.zeros((8, 2), np.float32),
      np.zeros(8, np.float32),
    )


def test_unused_parameters_have_gradient_zero():
  def step(w, x):
    return mean_gradients(jax.grad(lambda w: jnp.sum(x))(device_varying(w)))

  w = np.ones(2, np.float32)
  x = np.ones(8, np.float32)
  grads = sharded(step, in_specs=(P(), EACH))(w, x)
  assert grads.tolist() == [0, 0]


def test_integers_are_refused():
  with pytest.raises(ValueError, match=r"\['step'\] .*, got int32"):
    sharded(mean_gradients)({"step": np.zeros(8, np.int32)})


def test_an_axis_that_is_not_there_is_refused():
  with pytest.raises(ValueError, match="unknown mesh axis pod"):
    mean_gradients({"w": jnp.ones(3)}, "pod")
