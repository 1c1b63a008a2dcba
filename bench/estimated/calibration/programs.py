"""Programs whose times on TPUs are published, lowered for their chips."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..static.compile import lowered_for, slice_devices

_AXIS = "ring"
_CORES = "cores"


def lower_copy(chip: str, bytes_: int) -> jax.stages.Lowered:
  """Lower a copy of an array of bfloat16 in HBM."""
  x = jax.ShapeDtypeStruct((bytes_ // 2,), jnp.bfloat16)
  return lowered_for(jnp.copy, x, chip=chip)


def lower_matmul(chip: str, size: int) -> jax.stages.Lowered:
  """Lower XLA's product of two square matrices of bfloat16."""
  return lowered_for(jnp.matmul, *_square(size), chip=chip)


def lower_blocked_matmul(
  chip: str,
  size: int,
  block: tuple[int, int, int],
  *,
  transpose: bool = False,
  relu: bool = False,
) -> jax.stages.Lowered:
  """Lower a Pallas kernel that multiplies matrices of bfloat16 by blocks.

  Args:
    chip: One of `CHIPS`.
    size: Rows and columns of the matrices.
    block: Rows, contracted size and columns of a block.
    transpose: True to multiply by the transpose of the second matrix.
    relu: True to apply relu to the product.
  """
  function = partial(
    _blocked_matmul, block=block, transpose=transpose, relu=relu
  )
  return lowered_for(function, *_square(size), chip=chip)


def lower_permute(topology: str, bytes_: int) -> jax.stages.Lowered:
  """Lower a shift of `bytes_` from each chip to the next one of a ring."""
  devices = slice_devices(topology)
  mesh = Mesh(devices, _AXIS)
  count = len(devices)
  ring = [(i, (i + 1) % count) for i in range(count)]
  shape = (count * bytes_ // 4 // 128, 128)
  return _lower_sharded(
    partial(lax.ppermute, axis_name=_AXIS, perm=ring), mesh, shape
  )


def lower_all_gather(
  topology: str, shape: tuple[int, ...]
) -> jax.stages.Lowered:
  """Lower a gather of float32 over all chips, on each core of a chip by itself.

  Args:
    topology: Slice, such as "tpu7x:2x2x1".
    shape: Shape of each device's part.
  """
  devices = slice_devices(topology)
  chips = len({tuple(device.coords) for device in devices})
  mesh = Mesh(_by_chip(devices, chips), (_AXIS, _CORES))
  whole = (shape[0] * len(devices), *shape[1:])
  gather = partial(lax.all_gather, axis_name=_AXIS, tiled=True)
  return _lower_sharded(gather, mesh, whole)


def lower_all_reduce(topology: str, size: int) -> jax.stages.Lowered:
  """Lower a sum over all devices of square matrices of bfloat16."""
  devices = slice_devices(topology)
  mesh = Mesh(devices, _AXIS)
  shape = (size * len(devices), size)
  return _lower_sharded(
    partial(lax.psum, axis_name=_AXIS), mesh, shape, dtype=jnp.bfloat16
  )


def _square(size: int) -> Sequence[jax.ShapeDtypeStruct]:
  return [jax.ShapeDtypeStruct((size, size), jnp.bfloat16)] * 2


def _by_chip(devices: Sequence[jax.Device], chips: int):
  """Arrange devices by chip, in the order of a ring, and by core."""
  x_y = sorted({tuple(device.coords) for device in devices})
  ring = [*x_y[: len(x_y) // 2], *reversed(x_y[len(x_y) // 2 :])]
  ordered = sorted(devices, key=lambda d: ring.index(tuple(d.coords)))
  return [
    ordered[i : i + len(devices) // chips]
    for i in range(0, len(devices), len(devices) // chips)
  ]


def _lower_sharded(function, mesh: Mesh, shape, dtype=jnp.float32):
  """Lower a function of one array whose rows all devices share."""
  spec = P(mesh.axis_names)
  x = jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
  sharded = jax.shard_map(
    function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
  )
  return jax.jit(sharded).lower(x)


def _blocked_matmul(x, y, *, block, transpose, relu):
  (rows, inner, columns), size = block, x.shape[0]
  steps = size // inner
  y_spec = pl.BlockSpec((inner, columns), lambda i, j, k: (k, j))
  if transpose:
    y_spec = pl.BlockSpec((columns, inner), lambda i, j, k: (j, k))
  return pl.pallas_call(
    partial(_block_product, steps=steps, transpose=transpose, relu=relu),
    grid=(size // rows, size // columns, steps),
    in_specs=[pl.BlockSpec((rows, inner), lambda i, j, k: (i, k)), y_spec],
    out_specs=pl.BlockSpec((rows, columns), lambda i, j, k: (i, j)),
    scratch_shapes=[pltpu.VMEM((rows, columns), jnp.float32)],
    out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", "arbitrary")
    ),
  )(x, y)


def _block_product(x, y, z, total, *, steps, transpose, relu):
  @pl.when(pl.program_id(2) == 0)
  def _clear():
    total[...] = jnp.zeros_like(total)

  contracted = ((1,), (1 if transpose else 0,))
  total[...] += lax.dot_general(
    *(x[...], y[...], (contracted, ((), ()))),
    preferred_element_type=jnp.float32,
  )

  @pl.when(pl.program_id(2) == steps - 1)
  def _write():
    value = jax.nn.relu(total[...]) if relu else total[...]
    z[...] = value.astype(z.dtype)
