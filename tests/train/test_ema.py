import jax
import jax.numpy as jnp
import numpy as np

from podscale.train.ema import init_ema, update_ema

U = 2.0**-24  # relative rounding error of float32


def test_first_values_by_hand():
  average = init_ema({"kernel": jnp.array([0.0])})
  values = {"kernel": jnp.array([1.0])}
  # The decays are 2/11, 3/12 and 4/13; the start keeps their product.
  for n, left in ((1, 2 / 11), (2, 2 / 44), (3, 2 / 143)):
    average = update_ema(average, values, num_updates=n, max_decay=0.9999)
    np.testing.assert_allclose(average["kernel"], [1 - left], rtol=8 * U)


def test_equals_the_rule_in_float64_through_the_end_of_the_ramp():
  rng = np.random.default_rng(0)
  max_decay, steps = 0.9, 200  # the ramp ends at n = 80
  params = {"kernel": rng.standard_normal(16), "mean": np.zeros(3)}
  want = dict(params)
  average = init_ema(jax.tree.map(lambda x: jnp.float32(x), params))
  update = jax.jit(
    lambda average, values, n: update_ema(
      average, values, num_updates=n, max_decay=max_decay
    )
  )
  for n in range(1, steps + 1):
    values = {
      k: rng.standard_normal(x.shape).astype(np.float32)
      for k, x in params.items()
    }
    average = update(average, values, jnp.int32(n))
    decay = min(max_decay, (1 + n) / (10 + n))
    want = {k: decay * want[k] + (1 - decay) * values[k] for k in want}
  # About 6 roundings a step of values up to 5; the average forgets within
  # 1 / (1 - max_decay) = 10 steps.
  for name in want:
    np.testing.assert_allclose(
      average[name], want[name], rtol=0, atol=10 * 6 * U * 5
    )


def test_a_large_max_decay_keeps_its_digits():
  average = init_ema({"x": jnp.array(0.0)})
  values = {"x": jnp.array(1.0)}
  n = 10**6  # past the ramp
  average = update_ema(average, values, num_updates=n, max_decay=0.9999)
  np.testing.assert_allclose(average["x"], 1e-4, rtol=4 * U)


def test_the_first_average_is_a_float32_copy():
  values = {"a": jnp.ones(3), "b": jnp.ones(2, jnp.bfloat16)}
  average = init_ema(values)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(average))
  # A step donates both, so they must not share a buffer.
  step = jax.jit(
    lambda values, average: (
      values,
      update_ema(average, values, num_updates=1, max_decay=0.9),
    ),
    donate_argnums=(0, 1),
  )
  values, average = step(values, average)
  np.testing.assert_array_equal(average["b"], np.ones(2))
  assert average["b"].dtype == jnp.float32
