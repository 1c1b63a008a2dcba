"""All-reduce of small arrays by remote DMA, for TPUs."""

import importlib.metadata
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..kernels.surface import target_chip
from .collective_ids import exchange_id

_TILE = 8, 128  # sublanes and lanes of a float32 register
_FIRST_LIBTPU_FOR_V3 = 0, 0, 52


def exchange_sum(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
  """Sum x over mesh axes: each member sends x to every other at once.

  A ring takes as many steps as it has members. Here all messages travel at the
  same time, so the exchange takes the latency of the longest path plus the time
  of the busiest link. All members add the messages in the same order, so all
  get the same bits.

  No member sends before every member has passed the barrier. A collective also
  needs a second barrier, which keeps a signal of the next launch from being
  taken for a signal of this one. The messages are that second barrier: each
  member receives one from every other, sent after the first barrier.

  Args:
    x: Values to sum, float32 `[n]`, inside `shard_map`, typed as varying over
      the axes.
    axes: Mesh axes, outermost first.

  Returns:
    Sum, float32 `[n]`, typed as x, the same on all members.

  Raises:
    NotImplementedError: One message from each member does not fit in VMEM, or
      the installed compiler does not support remote DMA on the chip.
  """
  members = lax.axis_size(axes)
  rows = -(-x.size // math.prod(_TILE)) * _TILE[0]
  block = rows, _TILE[1]
  _check_target(4 * math.prod(block) * members, members)
  padded = jnp.pad(x, (0, math.prod(block) - x.size)).reshape(block)
  others = (lax.axis_index(axes) + jnp.arange(1, members)) % members
  sums = pl.pallas_call(
    _kernel,
    out_shape=jax.ShapeDtypeStruct(
      block, x.dtype, manual_axis_type=jax.typeof(x).manual_axis_type
    ),
    in_specs=[
      pl.BlockSpec(memory_space=pltpu.SMEM),
      pl.BlockSpec(memory_space=pltpu.SMEM),
      pl.BlockSpec(memory_space=pltpu.VMEM),
    ],
    out_specs=pl.BlockSpec(memory_space=pltpu.VMEM),
    scratch_shapes=[
      pltpu.VMEM((members, *block), x.dtype),
      pltpu.SemaphoreType.DMA,
      pltpu.SemaphoreType.DMA,
    ],
    compiler_params=pltpu.CompilerParams(collective_id=exchange_id(axes)),
    cost_estimate=pl.CostEstimate(
      flops=members * x.size,
      transcendentals=0,
      bytes_accessed=2 * padded.nbytes,
      remote_bytes_transferred=(members - 1) * padded.nbytes,
    ),
    name="exchange_sum",
  )(lax.axis_index(axes)[None], _places(others, axes), padded)
  return sums.reshape(-1)[: x.size]


def _check_target(bytes_: int, members: int) -> None:
  chip = target_chip()
  if bytes_ > chip.vmem_bytes:
    raise NotImplementedError(
      f"all_reduce: pallas_tpu keeps the messages of {members} members in "
      f"VMEM, which take {bytes_} bytes; {chip.vmem_bytes} are available; use "
      "implementation='psum'"
    )
  if chip.name in ("v2", "v3"):
    version = importlib.metadata.version("libtpu")
    if tuple(map(int, version.split(".")[:3])) < _FIRST_LIBTPU_FOR_V3:
      raise NotImplementedError(
        f"all_reduce: libtpu {version} aborts on a remote DMA for TPU "
        f"{chip.name}; install libtpu 0.0.52 or newer"
      )


def _places(members: jax.Array, axes: tuple[str, ...]) -> jax.Array:
  """Return the mesh coordinates of members, int32 `[mesh axes, members]`.

  The kernel takes them as input, because an axis index computed inside it would
  be typed as varying over the axes, which the Pallas compiler does not support.
  """
  sizes = [lax.axis_size(axis) for axis in axes]
  places = dict(zip(axes, jnp.unravel_index(members, sizes), strict=True))
  here = jnp.zeros_like(members)
  names = jax.sharding.get_abstract_mesh().axis_names
  return jnp.stack(
    [places.get(axis, here + lax.axis_index(axis)) for axis in names]
  )


def _kernel(
  me_ref,  # [1], index of this member in the group
  others_ref,  # [axes, members - 1], mesh coordinates, from the next member on
  x_ref,  # [rows, 128]
  sum_ref,  # [rows, 128]
  messages_ref,  # [members, rows, 128], one message of each member
  sent,
  arrived,
):
  me = me_ref[0]

  def message_to(i):
    return pltpu.make_async_remote_copy(
      x_ref,
      messages_ref.at[me],
      sent,
      arrived,
      device_id=_place(others_ref, i),
    )

  _wait_for_all(others_ref)
  _for_each(others_ref, lambda i: message_to(i).start())
  messages_ref[me] = x_ref[...]
  # Each wait counts one sent and one received message, in any order.
  _for_each(others_ref, lambda i: message_to(i).wait())
  sum_ref[...] = lax.fori_loop(
    1,
    messages_ref.shape[0],
    lambda i, total: total + messages_ref[i],
    messages_ref[0],
  )


def _wait_for_all(others_ref):
  barrier = pltpu.get_barrier_semaphore()

  def signal(i):
    pl.semaphore_signal(barrier, device_id=_place(others_ref, i))

  _for_each(others_ref, signal)
  pl.semaphore_wait(barrier, others_ref.shape[1])


def _place(others_ref, i):
  return tuple(others_ref[axis, i] for axis in range(others_ref.shape[0]))


def _for_each(others_ref, do):
  lax.fori_loop(0, others_ref.shape[1], lambda i, _: do(i), None)
