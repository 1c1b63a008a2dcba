import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from podscale.collectives import (
  ALL_DEVICES,
  gather_shards,
  group_mesh,
  scatter_mean,
  torus_of,
)

ROUNDOFF = 2.0**-24
ROWS = 16


def mesh_of(devices, group_size):
  return Mesh(np.array(devices).reshape(-1, group_size), ALL_DEVICES)


def on(mesh, function, **settings):
  """Run a function of each device's own buffer and of the torus."""
  torus = torus_of(mesh)
  return jax.jit(
    jax.shard_map(
      lambda x: function(x[0], torus)[None],
      mesh=mesh,
      in_specs=P(ALL_DEVICES),
      out_specs=P(ALL_DEVICES),
      **settings,
    )
  )


def buffers(devices=8):
  random = np.random.default_rng(0)
  return random.normal(size=(devices, ROWS, 3)).astype(np.float32)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("group_size", [1, 2, 4, 8])
def test_shards_of_the_mean(group_size, check_vma):
  x = buffers()
  mesh = group_mesh(group_size=group_size)
  shards = np.asarray(on(mesh, scatter_mean, check_vma=check_vma)(x))
  order = np.argsort(torus_of(mesh).shard_of_device)
  exact = np.float64(x).mean(0)
  # The error of a float32 sum of 8 terms is at most 8 roundoffs of their size.
  bound = 8 * ROUNDOFF * np.abs(x).mean(0)
  assert (np.abs(shards[order].reshape(ROWS, 3) - exact) <= bound).all()


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 6, 8])
def test_gathering_undoes_scattering(devices):
  mesh = mesh_of(jax.devices()[:devices], 1)
  rows = 24 // devices * devices
  x = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)

  def there_and_back(x, torus):
    return gather_shards(scatter_mean(x, torus), torus)

  # Sums of equal small integers, and the division: exact.
  result = on(mesh, there_and_back)(np.stack([x] * devices))
  assert (np.asarray(result) == x).all()


def test_any_order_of_devices_gives_the_same_mean():
  x = buffers()

  def mean(devices):
    mesh = mesh_of(devices, 2)
    places = [jax.devices().index(device) for device in devices]
    shards = on(mesh, scatter_mean)(x[places])
    return np.asarray(shards)[np.argsort(torus_of(mesh).shard_of_device)]

  shuffled = np.random.default_rng(1).permutation(jax.devices())
  np.testing.assert_allclose(
    mean(list(shuffled)), mean(jax.devices()), rtol=1e-6, atol=1e-6
  )


def test_gathers_in_the_dtype_of_the_shard(lowered_collectives):
  mesh = group_mesh(group_size=2)
  gather = on(mesh, lambda x, torus: gather_shards(x, torus))
  x = jnp.ones((8, 2, 128), jnp.bfloat16)
  # A mesh of 8 counts as 2 rows of 4; the rows come last.
  assert lowered_collectives(gather, x) == [
    ("all_gather", "2x128xbf16"),
    ("all_gather", "4x128xbf16"),
  ]
  assert gather(x).dtype == jnp.bfloat16


def test_the_gradient_of_gathering_is_the_sum_of_all_devices():
  mesh = group_mesh(group_size=2)
  slopes = buffers()
  first = np.zeros((8, ROWS // 8, 3), np.float32)

  def gradient(both, torus):
    shard, slope = both[: ROWS // 8], both[ROWS // 8 :]

    def loss(shard):
      return jnp.sum(gather_shards(shard, torus) * slope)

    return jax.grad(loss)(shard)

  grads = on(mesh, gradient)(np.concatenate([first, slopes], axis=1))
  order = np.argsort(torus_of(mesh).shard_of_device)
  total = np.asarray(grads)[order].reshape(ROWS, 3)
  np.testing.assert_allclose(
    total, slopes.sum(0), atol=8 * ROUNDOFF * np.abs(slopes).sum(0).max()
  )


@pytest.mark.parametrize(
  ("dtype", "rows", "message"),
  [
    (jnp.bfloat16, 16, r"got bfloat16 \(16, 3\)"),
    (jnp.float32, 12, r"multiple of 8 devices, got float32 \(12, 3\)"),
  ],
)
def test_what_cannot_be_sharded_is_refused(dtype, rows, message):
  mesh = group_mesh(group_size=2)
  with pytest.raises(ValueError, match=message):
    on(mesh, scatter_mean)(jnp.zeros((8, rows, 3), dtype))


def test_gradients_that_are_summed_already_are_refused():
  mesh = group_mesh(group_size=2)

  def step(x, torus):
    return scatter_mean(jnp.ones((ROWS, 3)), torus) + x[:2]

  with pytest.raises(ValueError, match="the same on all devices along"):
    on(mesh, step)(buffers())


def test_the_torus_of_another_mesh_is_refused():
  torus = torus_of(mesh_of(jax.devices()[:4], 2))
  mesh = group_mesh(group_size=2)
  for function in (scatter_mean, gather_shards):
    with pytest.raises(ValueError, match="has 4 devices, the axes group, mem"):
      on(mesh, lambda x, _, function=function: function(x, torus))(buffers())


def test_an_axis_that_is_not_there_is_refused():
  torus = torus_of(mesh_of(jax.devices()[:1], 1))
  with pytest.raises(ValueError, match="unknown mesh axis pod"):
    gather_shards(jnp.ones(3), torus, ("pod",))
