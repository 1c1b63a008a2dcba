"""Every public op on a CPU beside the same op in plain JAX: `make bench`.

No test asserts a speed. pytest-benchmark stores the measurements, and
`pytest-benchmark compare` compares two runs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from podscale import collectives, kernels
from podscale.bench.plain.depthwise import plain_depthwise, plain_moments
from podscale.bench.workloads.lars import updates
from podscale.kernels import Moments, Packed, pack_like

AXES = collectives.ALL_DEVICES
IMAGE = (28, 28, 8, 96)
CHANNELS = IMAGE[3]
TREE = {
  f"layer {i}": {
    "kernel": (3, 3, 1, 40 * i),
    "dense": (40 * i, 160),
    "bias": (160,),
  }
  for i in range(1, 9)
}


class Pair(NamedTuple):
  """Public op, the same op in plain JAX, and the arguments of each."""

  ours: object
  plain: object
  args: tuple
  plain_args: tuple | None = None

  def one(self, which):
    """Return one of the two functions and its arguments."""
    if which == "ours" or self.plain_args is None:
      return getattr(self, which), self.args
    return self.plain, self.plain_args


def drawn(*shape, seed=0):
  values = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


def with_gradients(function, count):
  """Differentiate all results with respect to the first arguments."""

  def scalar(*args):
    leaves = jax.tree.leaves(function(*args))
    return jnp.stack([jnp.sum(jnp.sin(x)) for x in leaves]).sum()

  return jax.grad(scalar, argnums=tuple(range(count)))


def on_devices(function, *args):
  """Run on 8 devices, each with its share of the first dimension."""
  mesh = collectives.group_mesh(group_size=4)

  def local(*args):
    result = function(mesh, *(x[0] for x in args))
    result = collectives.device_varying(result, AXES)
    return jax.tree.map(lambda x: x[None], result)

  return jax.shard_map(local, mesh=mesh, in_specs=P(AXES), out_specs=P(AXES))


def depthwise_conv_bn():
  def ours(*args):
    y, moments = kernels.depthwise_conv_bn(*args, activation="silu")
    return y, moments.mean, moments.m2

  def plain(*args):
    return plain_depthwise(*args, 1)

  vectors = [drawn(CHANNELS, seed=i) for i in (1, 2)]
  args = (drawn(*IMAGE), drawn(3, 3, CHANNELS), *vectors)
  return Pair(with_gradients(ours, 4), with_gradients(plain, 4), args)


def batch_norm():
  def ours(x, scale, offset):
    return kernels.batch_norm(x, scale, offset, activation="silu", pool=True)

  def plain(x, scale, offset):
    y = jax.nn.silu(x * scale[None, None, None] + offset[None, None, None])
    return y, y.mean((0, 1))

  args = (drawn(*IMAGE), drawn(CHANNELS), drawn(CHANNELS))
  return Pair(with_gradients(ours, 3), with_gradients(plain, 3), args)


def batch_norm_affine():
  def ours(mean, m2, scale, offset):
    moments = Moments(jnp.float32(100), mean, m2)
    return kernels.batch_norm_affine(moments, scale, offset)

  def plain(mean, m2, scale, offset):
    scale = scale * lax.rsqrt(m2 / 100 + 1e-3)
    return scale, offset - mean * scale

  vectors = [drawn(CHANNELS, seed=i) for i in range(4)]
  args = (vectors[0], vectors[1] ** 2, *vectors[2:])
  return Pair(with_gradients(ours, 4), with_gradients(plain, 4), args)


def channel_moments():
  def ours(x):
    moments = kernels.channel_moments(x)
    return moments.mean, moments.m2

  args = (drawn(*IMAGE),)
  return Pair(with_gradients(ours, 1), with_gradients(plain_moments, 1), args)


def pointwise_conv_bn():
  """Expansion of a wide block."""

  def ours(x, kernel):
    y, moments = kernels.pointwise_conv_bn(x, kernel)
    return y, moments.mean, moments.m2

  def plain(x, kernel):
    y = x @ kernel
    return y, *plain_moments(y)

  args = (drawn(*IMAGE[:3], CHANNELS // 6), drawn(CHANNELS // 6, CHANNELS))
  return Pair(with_gradients(ours, 2), with_gradients(plain, 2), args)


def gated_pointwise_conv_bn():
  def gate(weights, mean):
    return jax.nn.sigmoid(mean @ weights)

  def ours(x, kernel, scale, offset, weights):
    y, moments = kernels.gated_pointwise_conv_bn(
      *(x, kernel, scale, offset, gate, weights), activation="silu"
    )
    return y, moments.mean, moments.m2

  def plain(x, kernel, scale, offset, weights):
    z = jax.nn.silu(x * scale[None, None, None] + offset[None, None, None])
    y = (z * gate(weights, z.mean((0, 1)))[None, None]) @ kernel
    return y, *plain_moments(y)

  vectors = [drawn(CHANNELS, seed=i) for i in (1, 2)]
  args = (
    *(drawn(*IMAGE), drawn(CHANNELS, CHANNELS // 6), *vectors),
    drawn(CHANNELS, CHANNELS),
  )
  return Pair(with_gradients(ours, 5), with_gradients(plain, 5), args)


def tree(seed=0):
  return jax.tree.map(
    lambda shape: drawn(*shape, seed=seed),
    TREE,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def lars_update():
  plain, ours, _ = updates(tree())
  packing = pack_like(tree())
  packed = [Packed(packing.pack(tree(i)), packing) for i in range(3)]
  state = optax.tree_utils.tree_set(
    jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), plain.args[1]),
    trace=tree(1),
  )

  args = (*packed, jnp.float32(0.1))
  return Pair(ours.function, plain.function, args, (tree(0), state, tree(2)))


def leaf_norms():
  def plain(tree):
    leaves = jax.tree.leaves(tree)
    return jnp.stack([jnp.linalg.norm(x.ravel()) for x in leaves])

  return Pair(kernels.leaf_norms, plain, (Packed.of(tree()),), (tree(),))


def pack_like_():
  packing = pack_like(tree())

  def plain(tree):
    return jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])

  return Pair(packing.pack, plain, (tree(),))


def group_moments():
  def ours(mesh, mean, m2):
    moments = Moments(jnp.float32(100), mean, m2)
    return collectives.group_moments(moments, pivot=jnp.zeros_like(mean))[1:]

  def plain(mesh, mean, m2):
    square = m2 / 100 + mean**2
    mean, square = lax.pmean((mean, square), collectives.MEMBER)
    return mean, 400 * (square - mean**2)

  args = (drawn(8, CHANNELS), drawn(8, CHANNELS, seed=1) ** 2)
  return Pair(on_devices(ours), on_devices(plain), args)


def all_reduce():
  def ours(mesh, x):
    return collectives.all_reduce(x)

  def plain(mesh, x):
    return lax.psum(x, collectives.MEMBER)

  return Pair(on_devices(ours), on_devices(plain), (drawn(8, 2048),))


def mean_gradients():
  packing = pack_like(tree())

  def ours(mesh, x):
    return collectives.mean_gradients(packing.unpack(x))

  def plain(mesh, x):
    return jax.tree.map(lambda g: lax.pmean(g, AXES), packing.unpack(x))

  args = (drawn(8, packing.rows, 128),)
  return Pair(on_devices(ours), on_devices(plain), args)


def scatter_mean():
  def ours(mesh, x):
    torus = collectives.torus_of(mesh)
    return collectives.scatter_mean(x, torus)

  def plain(mesh, x):
    mean = lax.pmean(x, AXES)
    rows = x.shape[0] // 8
    return lax.dynamic_slice_in_dim(mean, lax.axis_index(AXES) * rows, rows)

  return Pair(on_devices(ours), on_devices(plain), (drawn(8, 1024, 128),))


def gather_shards():
  def ours(mesh, x):
    return collectives.gather_shards(x, collectives.torus_of(mesh))

  def plain(mesh, x):
    return lax.all_gather(x, AXES, tiled=True)

  return Pair(on_devices(ours), on_devices(plain), (drawn(8, 128, 128),))


def merge_running_statistics():
  def ours(mesh, means, variances):
    return collectives.merge_running_statistics(
      means, variances, old_means=jnp.zeros_like(means), momentum=0.9
    )

  def plain(mesh, means, variances):
    return lax.pmean((means, variances), AXES)

  args = (drawn(8, 20_000), drawn(8, 20_000, seed=1) ** 2)
  return Pair(on_devices(ours), on_devices(plain), args)


def evaluation_sums():
  def ours(mesh, logits, labels):
    return collectives.evaluation_sums(logits, labels)

  def plain(mesh, logits, labels):
    _, best = lax.top_k(logits, 5)
    hit = best == labels[:, None]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    sums = hit[:, 0].sum(), hit.sum(), losses.sum()
    return lax.psum(sums, AXES)

  labels = np.random.default_rng(0).integers(0, 1000, (8, 64), dtype=np.int32)
  return Pair(on_devices(ours), on_devices(plain), (drawn(8, 64, 1000), labels))


PAIRS = {
  pair.__name__.rstrip("_"): pair
  for pair in (
    *(depthwise_conv_bn, batch_norm, batch_norm_affine, channel_moments),
    *(pointwise_conv_bn, gated_pointwise_conv_bn),
    *(lars_update, leaf_norms, pack_like_),
    *(group_moments, all_reduce, mean_gradients, scatter_mean, gather_shards),
    *(merge_running_statistics, evaluation_sums),
  )
}
NO_COMPUTATION = {
  *("describe", "default_implementation", "device_varying", "own_shard"),
  *("group_mesh", "group_size_for", "torus_of"),
  # These only move values, for TPUs.
  *("to_bands", "from_bands", "change_bands", "over_bands"),
}


def test_every_public_op_has_a_pair():
  functions = {
    name
    for module in (kernels, collectives)
    for name in module.__all__
    if name.islower() and callable(getattr(module, name))
  }
  assert functions - NO_COMPUTATION == set(PAIRS)


@pytest.mark.parametrize("which", ["ours", "plain"])
@pytest.mark.parametrize("op", PAIRS)
def test_speed(benchmark, op, which):
  benchmark.group = op
  function, args = PAIRS[op]().one(which)
  # The setting of the other tests compiles faster but runs slower.
  compiled = (
    jax.jit(function)
    .lower(*args)
    .compile(compiler_options={"xla_backend_optimization_level": 3})
  )
  benchmark(lambda: jax.block_until_ready(compiled(*args)))
