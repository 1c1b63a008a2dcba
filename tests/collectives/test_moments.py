import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from podscale.collectives import (
  ALL_DEVICES,
  MEMBER,
  device_varying,
  group_mesh,
  group_moments,
  mean_gradients,
)
from podscale.kernels.common.moments import Moments

DEVICES, ROWS, CHANNELS = 8, 16, 5
EPSILON = 1e-6
ROUNDOFF = 2.0**-24
GROUP_SIZES = [1, 2, 4, 8]


def own_moments(x, rows):
  """Compute moments of the first `rows` of x [ROWS, c], and a row mask."""
  real = (jnp.arange(ROWS) < rows)[:, None]
  count = rows.astype(jnp.float32)
  divisor = jnp.maximum(count, 1)
  mean = jnp.sum(jnp.where(real, x, 0), axis=0) / divisor
  m2 = jnp.sum(jnp.where(real, x - mean[None], 0) ** 2, axis=0)
  return Moments(count, mean, m2), real


def loss(parameters, x, rows, weights, pivot=None):
  """Sum the weighted, normalised values; its gradient is batch norm's."""
  gamma, beta = parameters
  moments, real = own_moments(x, rows)
  moments = group_moments(moments, pivot=pivot)
  inverse = jax.lax.rsqrt(moments.m2 / moments.count + EPSILON)
  normal = (x - moments.mean[None]) * inverse[None]
  y = normal * gamma[None] + beta[None]
  return jnp.sum(jnp.where(real, weights * y, 0)), moments


def device_step(parameters, x, rows, weights, pivot):
  parameters = device_varying(parameters)
  (_, moments), (grads, dx) = jax.value_and_grad(
    loss, argnums=(0, 1), has_aux=True
  )(parameters, x, rows[0], weights, pivot)
  return jax.tree.map(lambda m: m[None], moments), mean_gradients(grads), dx


@functools.cache
def sharded_step(group_size, check_vma=True):
  return jax.jit(
    jax.shard_map(
      device_step,
      mesh=group_mesh(group_size=group_size),
      in_specs=(P(), *[P(ALL_DEVICES)] * 3, P()),
      out_specs=(P(ALL_DEVICES), P(), P(ALL_DEVICES)),
      check_vma=check_vma,
    )
  )


def oracle(gamma, x, weights):
  """Compute float64 batch norm of one group: x and weights [n, c]."""
  mean = x.mean(0)
  m2 = ((x - mean) ** 2).sum(0)
  inverse = 1 / np.sqrt(m2 / len(x) + EPSILON)
  normal = (x - mean) * inverse
  dx = (
    gamma
    * inverse
    * (weights - weights.mean(0) - normal * (weights * normal).mean(0))
  )
  return mean, m2, normal, inverse, dx


def inputs(mean, std, seed=0):
  generator = np.random.default_rng(seed)
  shape = (DEVICES * ROWS, CHANNELS)
  x = (mean + std * generator.normal(size=shape)).astype(np.float32)
  weights = generator.normal(size=shape).astype(np.float32)
  gamma = generator.uniform(0.5, 2, CHANNELS).astype(np.float32)
  beta = generator.normal(size=CHANNELS).astype(np.float32)
  return (gamma, beta), x, weights


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(
  ("rows", "mean", "std"),
  [
    ([ROWS] * DEVICES, 0.5, 2),
    ([ROWS] * DEVICES, 1e3, 1e-2),
    ([16, 3, 1, 9, 16, 0, 7, 12], 0.5, 2),
    ([16, 3, 1, 9, 16, 0, 7, 12], 1e3, 1e-2),
  ],
)
# The pivot in standard deviations from the mean; None for no pivot.
@pytest.mark.parametrize("pivot", [None, 1])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_equals_one_device_on_the_concatenated_batch(
  group_size, pivot, rows, mean, std, check_vma
):
  if group_size == 1:
    rows = [max(r, 1) for r in rows]  # an empty group has its own test
  parameters, x, weights = inputs(mean, std)
  if pivot is not None:
    pivot = np.full(CHANNELS, mean + pivot * std, np.float32)
  moments, grads, dx = jax.tree.map(
    np.asarray,
    sharded_step(group_size, check_vma)(
      parameters, x, np.array(rows, np.int32), weights, pivot
    ),
  )
  gamma = np.float64(parameters[0])
  real = (np.arange(ROWS) < np.array(rows)[:, None]).reshape(-1)
  dgamma, dgamma_error = np.zeros(CHANNELS), np.zeros(CHANNELS)

  for first in range(0, DEVICES, group_size):
    members = slice(first, first + group_size)
    group = np.zeros_like(real)
    group[first * ROWS : (first + group_size) * ROWS] = True
    group &= real
    xs, ws = np.float64(x[group]), np.float64(weights[group])
    mean_, m2_, normal, inverse, dx_ = oracle(gamma, xs, ws)

    # Bounds: a float32 sum of k terms has a relative error of k roundoffs at
    # most: ROWS + group_size for a sum over members of sums over rows, and one
    # each for the product, the division and the subtraction.
    terms = (ROWS + group_size + 3) * ROUNDOFF
    mean_error = terms * np.abs(xs).max()
    # With an error e of the mean and of each member's mean, m2 has an error of
    # n e^2 and of the cross term 2 n (member's mean - mean) e.
    spread = np.abs(xs - mean_).max(0) + 2 * mean_error
    n = len(xs)
    m2_error = n * mean_error**2 + 2 * n * spread * mean_error + terms * m2_
    if pivot is not None:  # the sum about the pivot, and the subtraction
      m2_error += 2 * terms * n * (mean_ - pivot) ** 2
    # First order in the errors of 1/std (relative) and of the normalised x.
    inverse_error = 0.5 * m2_error / n * inverse**2 + 2 * terms
    largest = np.abs(normal).max(0)
    normal_error = mean_error * inverse + inverse_error * largest
    w = np.abs(ws).max(0)
    dx_error = (gamma * inverse * w) * (
      (inverse_error + 2 * terms) * (2 + largest**2)
      + 2 * largest * normal_error
    )

    for d in range(first, first + group_size):
      assert moments.count[d] == n
      assert (np.abs(moments.mean[d] - mean_) <= mean_error).all()
      assert (np.abs(moments.m2[d] - m2_) <= m2_error).all()
    assert len(np.unique(moments.mean[members], axis=0)) == 1
    assert len(np.unique(moments.m2[members], axis=0)) == 1
    assert (np.abs(dx[group] - dx_) <= dx_error).all()
    dgamma += (ws * normal).sum(0) / DEVICES
    dgamma_error += n * w * (normal_error + 2 * terms * largest) / DEVICES

  assert not dx[~real].any()
  assert (np.abs(grads[0] - dgamma) <= dgamma_error).all()
  dbeta = np.float64(weights[real]).sum(0) / DEVICES
  bound = (ROWS + DEVICES) * ROUNDOFF * np.abs(weights[real]).sum(0)
  assert (np.abs(grads[1] - dbeta) <= bound).all()


def test_the_bounds_would_catch_a_difference_of_squares():
  # The tests above must refuse E[x^2] - E[x]^2 in float32 at the large mean.
  _, x, _ = inputs(1e3, 1e-2)
  naive = (x**2).mean(0) - x.mean(0) ** 2
  exact = np.float64(x).var(0)
  assert (np.abs(naive - exact) > exact).any()


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_differentiates_from_outside_shard_map(group_size):
  parameters, x, weights = inputs(0.5, 2)
  rows = np.full(DEVICES, ROWS, np.int32)

  def total(x):
    def own(parameters, x, rows, weights):
      return loss(parameters, x, rows[0], weights)[0][None]

    losses = jax.shard_map(
      own,
      mesh=group_mesh(group_size=group_size),
      in_specs=(P(), *[P(ALL_DEVICES)] * 3),
      out_specs=P(ALL_DEVICES),
    )(parameters, x, rows, weights)
    return jnp.sum(losses)

  inside = sharded_step(group_size)(parameters, x, rows, weights, None)[2]
  # The programs differ only in XLA's fusions: a few roundoffs of the terms.
  np.testing.assert_allclose(
    jax.jit(jax.grad(total))(x), inside, rtol=1e-5, atol=64 * ROUNDOFF
  )


def merge(moments, group_size):
  """Merge moments; differentiate sum(mean + m2) for each member."""

  def own(moments):
    moments = jax.tree.map(lambda m: m[0], moments)

    def total(moments):
      merged = group_moments(moments)
      return jnp.sum(merged.mean + merged.m2), merged

    grads, merged = jax.grad(total, has_aux=True)(moments)
    return jax.tree.map(lambda m: m[None], (merged, grads))

  return jax.jit(
    jax.shard_map(
      own,
      mesh=group_mesh(group_size=group_size),
      in_specs=P(ALL_DEVICES),
      out_specs=P(ALL_DEVICES),
    )
  )(moments)


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_empty_members_and_groups_give_no_nan(group_size):
  # Devices 1 and 4 to 7 are empty; their mean and m2 are 0 / 0.
  count = np.array([8, 0, 4, 4, 0, 0, 0, 0], np.float32)
  mean = np.where(count > 0, np.arange(8), np.nan)[:, None]
  m2 = np.where(count > 0, 1, np.nan)[:, None]
  moments = Moments(count, np.float32(mean), np.float32(m2))
  merged, grads = jax.tree.map(np.asarray, merge(moments, group_size))

  for d in range(8):
    group = slice(d - d % group_size, d - d % group_size + group_size)
    n, total = count[group], count[group].sum()
    member_means = np.nan_to_num(mean[group, 0])
    expected = (n * member_means).sum() / max(total, 1)
    # Small integers over powers of two: exact.
    assert merged.count[d] == total
    assert merged.mean[d, 0] == expected
    assert (
      merged.m2[d, 0]
      == (n > 0).sum() + (n * (member_means - expected) ** 2).sum()
    )
    # Each member of the group adds the same loss, so the slope of one member's
    # mean counts group_size times.
    own = np.nan_to_num(mean[d, 0])
    slope = count[d] / max(total, 1) + 2 * count[d] * (own - expected)
    assert grads.mean[d, 0] == group_size * slope
    assert grads.m2[d, 0] == group_size * (count[d] > 0)
    assert grads.count[d] == 0


def layers(parameters, x, known, pivot):
  """Apply three batch-norm layers in sequence."""
  for gamma, beta in parameters:
    moments, _ = own_moments(x, jnp.int32(ROWS))
    if known:
      moments = moments._replace(count=np.float32(ROWS))
    moments = group_moments(moments, pivot=gamma if pivot else None)
    inverse = jax.lax.rsqrt(moments.m2 / moments.count + EPSILON)
    x = jnp.sin((x - moments.mean[None]) * (inverse * gamma)[None] + beta[None])
  return jnp.sum(x)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("pivot", [True, False])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_collectives_per_layer(
  group_size, known, pivot, all_reduces, lowered_collectives
):
  mesh = group_mesh(group_size=group_size)
  x = np.ones((DEVICES * ROWS, CHANNELS), np.float32)
  parameters = [(np.ones(CHANNELS, np.float32),) * 2] * 3

  def forward(parameters, x):
    return layers(device_varying(parameters), x, known, pivot)[None]

  def backward(parameters, x):
    parameters = device_varying(parameters)
    grads, dx = jax.grad(layers, argnums=(0, 1))(parameters, x, known, pivot)
    return mean_gradients(grads), dx

  def sharded(function, out_specs):
    return jax.shard_map(
      function, mesh=mesh, in_specs=(P(), P(ALL_DEVICES)), out_specs=out_specs
    )

  size = 2 * CHANNELS + (not known)
  of_layer = "all_reduce" if pivot else "all_gather"
  shape = f"{size}xf32" if pivot else f"1x{size}xf32"
  layer_forward = [(of_layer, shape)]
  layer_backward = [("all_reduce", f"{2 * CHANNELS}xf32")]
  if group_size == 1:
    layer_forward, layer_backward = [], []

  step = sharded(forward, P(ALL_DEVICES))
  assert lowered_collectives(step, parameters, x) == 3 * layer_forward
  assert all_reduces(step, parameters, x) == 3 * len(layer_forward) * pivot

  step = sharded(backward, (P(), P(ALL_DEVICES)))
  of_layers = 3 * layer_forward + 3 * layer_backward
  of_gradients = 6 * [("all_reduce", f"{CHANNELS}xf32")]
  assert lowered_collectives(step, parameters, x) == of_layers + of_gradients
  # XLA merges the all-reduces of the gradients into one, and that one with the
  # last of the backward pass if the group is all devices.
  reduced = [kind for kind, _ in of_layers if kind == "all_reduce"]
  assert all_reduces(step, parameters, x) == len(reduced) + (
    group_size < DEVICES
  )


@pytest.mark.parametrize("group_size", [1, 2])
def test_result_varies_whatever_the_inputs_do(group_size):
  def own(mean):
    merged = group_moments(Moments(np.float32(2), mean, mean))
    assert merged.count == 2 * group_size  # known while tracing
    for value in merged[1:]:
      assert MEMBER in jax.typeof(value).manual_axis_type.varying
    return jax.tree.map(lambda m: m[None], merged[1:])

  mean, m2 = jax.jit(
    jax.shard_map(
      own,
      mesh=group_mesh(group_size=group_size),
      in_specs=P(),
      out_specs=P(ALL_DEVICES),
    )
  )(np.ones(3, np.float32))
  assert (np.asarray(mean) == 1).all()
  assert (np.asarray(m2) == group_size).all()


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("pivot", [None, 2.0])
def test_a_known_count_counts_for_every_member(pivot, group_size):
  # All values are small integers and powers of two, so nothing is rounded.
  count = 4
  mean = np.arange(DEVICES, dtype=np.float32)[:, None]
  m2 = np.full((DEVICES, 1), 8, np.float32)

  def own(mean, m2):
    shared = None if pivot is None else jnp.full(1, pivot)
    moments = Moments(np.float32(count), mean[0], m2[0])
    merged = group_moments(moments, pivot=shared)
    return merged.mean[None], merged.m2[None]

  merged = jax.shard_map(
    own,
    mesh=group_mesh(group_size=group_size),
    in_specs=P(ALL_DEVICES),
    out_specs=P(ALL_DEVICES),
  )(mean, m2)
  means = mean.reshape(-1, group_size)
  expected = means.mean(1), group_size * 8 + count * group_size * means.var(1)
  for actual, values in zip(merged, expected, strict=True):
    np.testing.assert_array_equal(
      actual.ravel(), np.repeat(values, group_size).astype(np.float32)
    )


def test_the_result_has_a_name_for_policies_of_checkpoint():
  moments = Moments(jnp.float32(1), jnp.ones(1), jnp.ones(1))
  gradient = jax.shard_map(
    jax.grad(lambda mean: group_moments(moments._replace(mean=mean)).mean[0]),
    mesh=group_mesh(group_size=2),
    in_specs=P(),
    out_specs=P(ALL_DEVICES),
  )
  assert "name=group_moments" in str(jax.make_jaxpr(gradient)(jnp.ones(1)))


def test_second_call_does_not_recompile():
  step = sharded_step(4)
  parameters, x, weights = inputs(0, 1)
  rows = np.full(DEVICES, ROWS, np.int32)
  step(parameters, x, rows, weights, None)
  programs = step._cache_size()
  step(parameters, x + 1, rows, weights, None)
  assert step._cache_size() == programs


@pytest.mark.parametrize(
  ("moments", "message"),
  [
    (((1,), (3,), (3,)), r"got shapes \(1,\), \(3,\) and \(3,\)"),
    (((), (3,), (4,)), r"got shapes \(\), \(3,\) and \(4,\)"),
    (((), (2, 3), (2, 3)), r"got shapes \(\), \(2, 3\) and \(2, 3\)"),
  ],
)
def test_shapes_must_fit(moments, message):
  with pytest.raises(ValueError, match=message):
    group_moments(Moments(*[jnp.zeros(shape) for shape in moments]))


def test_dtypes_must_be_float32():
  zeros = jnp.zeros(3)
  with pytest.raises(ValueError, match="mean bfloat16"):
    group_moments(Moments(jnp.float32(1), zeros.astype(jnp.bfloat16), zeros))


@pytest.mark.parametrize("count", [np.nan, np.inf, -1])
def test_a_count_must_be_a_number_of_values(count):
  zeros = jnp.zeros(3)
  with pytest.raises(ValueError, match=f"0 or more, got {count}"):
    group_moments(Moments(np.float32(count), zeros, zeros))


@pytest.mark.parametrize(
  ("pivot", "message"),
  [
    (
      np.zeros(4, np.float32),
      r"float32 \(3,\), as the mean, got float32 \(4,\)",
    ),
    (np.zeros(3, jnp.bfloat16), r"got bfloat16 \(3,\)"),
  ],
)
def test_the_pivot_must_fit(pivot, message):
  zeros = jnp.zeros(3)
  with pytest.raises(ValueError, match=message):
    group_moments(Moments(np.float32(1), zeros, zeros), pivot=pivot)


def test_the_kernel_needs_a_pivot():
  zeros = jnp.zeros(3)
  with pytest.raises(NotImplementedError, match="needs a pivot, got None"):
    group_moments(
      Moments(np.float32(1), zeros, zeros), implementation="pallas_tpu"
    )


def test_an_axis_that_is_not_there_is_refused():
  zeros = jnp.zeros(3)
  with pytest.raises(ValueError, match="unknown mesh axis pod"):
    group_moments(Moments(np.float32(1), zeros, zeros), "pod")
