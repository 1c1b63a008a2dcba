import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from podscale.collectives import (
  ALL_DEVICES,
  GROUP,
  group_mesh,
  merge_running_statistics,
)

MOMENTUM = 0.9
LAYERS = {"stem": 3, "head": 5}
ROUNDOFF = 2.0**-24


def merge(old, means, variances, group_size, axis_names=ALL_DEVICES):
  """Merge statistics of the groups, [groups, c] per layer, to one set."""

  def own(old, means, variances):
    means, variances = jax.tree.map(lambda x: x[0], (means, variances))
    return merge_running_statistics(
      means,
      variances,
      old_means=old,
      momentum=MOMENTUM,
      axis_names=axis_names,
    )

  return jax.shard_map(
    own,
    mesh=group_mesh(group_size=group_size),
    in_specs=(P(), P(GROUP), P(GROUP)),
    out_specs=P(),
  ), (old, means, variances)


def update(old, batch):
  """Update one layer of one group in float32, as the layer does."""
  momentum = np.float32(MOMENTUM)
  return momentum * old + (np.float32(1) - momentum) * batch


@pytest.mark.parametrize("axis_names", [GROUP, ALL_DEVICES])
@pytest.mark.parametrize("group_size", [1, 2, 4, 8])
def test_equals_the_statistics_of_the_whole_batch(group_size, axis_names):
  generator = np.random.default_rng(0)
  groups = 8 // group_size
  old, new, want = {}, {}, {}
  for name, channels in LAYERS.items():
    # Each group has rows of its own mean, so the groups' means differ.
    offset = 3 * generator.normal(size=(groups, 1, channels))
    x = offset + generator.normal(size=(groups, 32, channels))
    old_mean = generator.normal(size=channels).astype(np.float32)
    old_variance = generator.uniform(1, 2, channels).astype(np.float32)
    old[name] = old_mean
    new[name] = (
      update(old_mean, x.mean(1).astype(np.float32)),
      update(old_variance, x.var(1).astype(np.float32)),
    )
    batch = x.reshape(-1, channels)
    want[name] = (
      MOMENTUM * old_mean + (1 - MOMENTUM) * batch.mean(0),
      MOMENTUM * old_variance + (1 - MOMENTUM) * batch.var(0),
    )
  function, args = merge(
    old,
    {name: mean for name, (mean, _) in new.items()},
    {name: variance for name, (_, variance) in new.items()},
    group_size,
    axis_names,
  )
  means, variances = jax.jit(function)(*args)

  for name in LAYERS:
    mean, variance = want[name]
    # A sum of 8, its division, the step and the update: 12 roundings. Steps
    # are rounded at the size of the means; the variance between the groups
    # divides that by 1 - momentum, and the square doubles it.
    size = np.abs(new[name][0]).max() + np.abs(old[name]).max()
    step = np.abs(new[name][0] - old[name]).max()
    bound = 12 * ROUNDOFF * size
    assert (np.abs(means[name] - mean) <= bound).all()
    bound = 12 * ROUNDOFF * new[name][1].max() + (
      2 * step * 12 * ROUNDOFF * size / (1 - MOMENTUM)
    )
    assert (np.abs(variances[name] - variance) <= bound).all()


def test_between_group_variance_counts():
  # Two groups of constant values, 0 and 2: within each the variance is 0.
  zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
  batch_means = np.array([[0], [2]], np.float32)
  function, args = merge(
    {"a": zero},
    {"a": update(zero, batch_means)},
    {"a": update(one, 0 * batch_means)},
    4,
  )
  means, variances = jax.jit(function)(*args)
  # All four numbers are below 1, with a few roundings each.
  assert abs(means["a"][0] - 0.1) < 8 * ROUNDOFF
  assert abs(variances["a"][0] - (0.9 + 0.1 * 1)) < 8 * ROUNDOFF


def test_large_mean():
  # Means of 1e3 that differ between the groups by 1e-2.
  zero = np.zeros(256, np.float32)
  offsets = np.random.default_rng(0).normal(size=(8, 256))
  batch_mean = (1e3 + 1e-2 * offsets).astype(np.float32)
  variance = update(zero, np.full((8, 256), 1e-4, np.float32))
  between = np.float64(batch_mean).var(0)
  exact = (1 - MOMENTUM) * (1e-4 + between)

  def merged_variance(old):
    mean = update(old, batch_mean)
    function, args = merge({"a": old}, {"a": mean}, {"a": variance}, 1)
    return jax.jit(function)(*args)[1]["a"]

  # The first step, from 0, has the docstring's rounding error, for two squares
  # and the sums over 8 devices; it cannot fall below the groups' own variance.
  merged = merged_variance(zero)
  bound = 10 * (1 - MOMENTUM) * 1e6 * 2.0**-23
  assert (np.abs(merged - exact) <= bound).all()
  assert (merged >= variance.min()).all()

  # Near the true mean only the rounding of the new means at 1e3 remains: an
  # error e of each step, so 2 e std + e^2 of their variance.
  merged = merged_variance(zero + np.float32(1e3))
  error = ROUNDOFF * 1e3
  std = (1 - MOMENTUM) * np.sqrt(between)
  bound = (2 * error * std + error**2) / (1 - MOMENTUM)
  assert (bound < 0.2 * exact).all()
  assert (np.abs(merged - exact) <= bound).all()


def test_one_all_reduce_for_all_layers(all_reduces):
  old = {f"layer{i}": np.zeros(2 + i, np.float32) for i in range(8)}
  new = {name: np.zeros((4, *x.shape), np.float32) for name, x in old.items()}
  function, args = merge(old, new, new, group_size=2)
  assert all_reduces(function, *args) == 1


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_momentum_must_be_a_share(momentum):
  with pytest.raises(ValueError, match=rf"\[0, 1\), got {momentum}"):
    merge_running_statistics({}, {}, old_means={}, momentum=momentum)
