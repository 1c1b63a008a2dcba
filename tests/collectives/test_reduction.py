import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from podscale.collectives import ALL_DEVICES, MEMBER, all_reduce, group_mesh

X = np.arange(16, dtype=np.float32)


def sharded(function, group_size=4, check_vma=True):
  return jax.jit(
    jax.shard_map(
      function,
      mesh=group_mesh(group_size=group_size),
      in_specs=P(ALL_DEVICES),
      out_specs=P(ALL_DEVICES),
      check_vma=check_vma,
    )
  )


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("group_size", [1, 2, 8])
def test_sum_and_gradient(group_size, check_vma):
  def loss(x):
    total = all_reduce(x)
    return jnp.sum(total**2), total

  def step(x):
    grads, total = jax.grad(loss, has_aux=True)(x)
    return jnp.stack([grads, total], axis=1)

  result = sharded(step, group_size, check_vma)(X)
  totals = X.reshape(-1, group_size, 2).sum(1)
  totals = np.repeat(totals[:, None], group_size, axis=1).reshape(-1)
  assert (np.asarray(result[:, 1]) == totals).all()
  # The loss of every member depends on x.
  assert (np.asarray(result[:, 0]) == group_size * 2 * totals).all()


def test_the_result_varies():
  def typed(x):
    total = all_reduce(jnp.float32(1))
    assert jax.typeof(total).manual_axis_type.varying == {MEMBER}
    return x * total

  assert sharded(typed)(X).tolist() == (4 * X).tolist()


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"axis_name": "pod"}, "unknown mesh axis pod; .*: group, member"),
    (
      {"implementation": "ring"},
      "unknown implementation 'ring'; .* psum, pallas",
    ),
  ],
)
def test_unknown_names_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    sharded(lambda x: all_reduce(x, **arguments))(X)


def test_outside_shard_map_is_refused():
  with pytest.raises(ValueError, match="unknown mesh axis member; .*: none"):
    all_reduce(jnp.zeros(3))


def test_other_dtypes_are_refused():
  with pytest.raises(ValueError, match=r"needs float32, got bfloat16 \(2,\)"):
    sharded(lambda x: all_reduce(x.astype(jnp.bfloat16)))(X)
