import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

from podscale.collectives import (
  ALL_DEVICES,
  GROUP,
  MEMBER,
  device_varying,
  group_mesh,
)

SAME = P()


def run(function, *args, in_specs, out_specs=SAME, check_vma=True):
  return jax.jit(
    jax.shard_map(
      function,
      mesh=group_mesh(group_size=2),
      in_specs=in_specs,
      out_specs=out_specs,
      check_vma=check_vma,
    )
  )(*args)


def varying(x):
  return jax.typeof(x).manual_axis_type.varying


def test_adds_only_the_axes_that_are_missing():
  def f(same, groups, devices):
    tree = {"a": same, "b": [groups, devices]}
    for axes in (MEMBER, GROUP, ALL_DEVICES):
      before = jax.tree.map(varying, tree)
      after = jax.tree.map(varying, device_varying(tree, axes))
      named = {axes} if isinstance(axes, str) else set(axes)
      assert after == jax.tree.map(lambda old, new=named: old | new, before)
    values = device_varying(tree)
    return lax.psum(values["a"] + sum(values["b"]), ALL_DEVICES)

  total = run(
    f,
    np.float32(1),
    np.arange(4, dtype=np.float32),
    np.arange(8, dtype=np.float32),
    in_specs=(P(), P(GROUP), P(ALL_DEVICES)),
  )
  assert total.tolist() == [8 * 1 + 2 * 6 + 28]


def test_gradient_is_that_of_the_own_device():
  x = np.arange(8, dtype=np.float32)

  def loss(w, x):
    return jnp.sum(w * x)

  def own(w, x):
    return jax.grad(loss)(device_varying(w), x)[None]

  gradients = run(
    own,
    np.float32(2),
    x,
    in_specs=(P(), P(ALL_DEVICES)),
    out_specs=P(ALL_DEVICES),
  )
  assert gradients.tolist() == x.tolist()
  # Without the cast JAX sums over the devices, as the docstring warns.
  summed = run(jax.grad(loss), np.float32(2), x, in_specs=(P(), P(ALL_DEVICES)))
  assert summed == x.sum()


def test_does_nothing_where_types_are_not_checked():
  def f(x):
    y = device_varying(x)
    assert y is x
    return lax.psum(y, ALL_DEVICES)

  assert run(f, np.float32(3), in_specs=P(), check_vma=False) == 24
