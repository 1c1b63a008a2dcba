"""Per-channel inputs and outputs of a kernel, in either layout.

With the channels in the lanes, each vector is an operand of its own: `[c]`, or
a row `[1, c]` for TPU v3. XLA copies the vector to make a row, so later chips
take `[c]`. With the channels in the sublanes, all vectors are columns of one
table `[c, values]`, because a column of its own would take 512 bytes a channel.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from ...common.tpu_prologue import Prologue, make_prologue
from ...tpu.pallas_call import Operand, Result
from ...tpu.registers import LANES, SUBLANES, TILE, broadcast
from .geometry import Geometry

_MOST_VECTORS = 5  # inputs or outputs of either kernel

FilterRegisters = list[list[jax.Array]]
"""Register of each row and column of the filter."""


class ChannelInputs(NamedTuple):
  """Filters and per-channel vectors that a kernel reads.

  Attributes:
    g: Geometry of the call.
    names: Names of the vectors.
  """

  g: Geometry
  names: tuple[str, ...]

  def operands(
    self, filters: jax.Array, vectors: Mapping[str, jax.Array | None]
  ) -> dict[str, Operand]:
    """Make the operands of the filters and of the vectors in `names`."""
    g, k = self.g, self.g.rows.kernel_size
    if g.channels_in_lanes:
      if g.blocks.bf16_pairs:
        # Otherwise each step would convert the taps one after the other.
        filters = filters.astype(jnp.float32)
      rows = {
        name: (_as_row(g, vectors[name]), _row_block(g)) for name in self.names
      }
      return {"filters": (filters, _filters_block(k)), **rows}
    table = jnp.concatenate(
      [
        filters.astype(jnp.float32).reshape(k * k, -1),
        *[vectors[name].reshape(1, -1) for name in self.names],  # type: ignore
      ]
    )
    return {"channel_inputs": (table.T, _table_block(g, len(table)))}

  def taps(self, refs, group) -> FilterRegisters:
    """Load the taps of a channel group."""
    k = range(self.g.rows.kernel_size)
    if self.g.channels_in_lanes:
      return [[broadcast(refs.filters[a, b : b + 1]) for b in k] for a in k]
    return [[self._column(refs, a * len(k) + b, group) for b in k] for a in k]

  def filter_registers(
    self, refs, group, *, reverse: bool = False
  ) -> FilterRegisters:
    """Load the filter of a channel group, with winograd its transform.

    Args:
      refs: Refs of the kernel.
      group: Channel group.
      reverse: True to reverse each row before the transform, because inputs
        meet the taps in the opposite direction to outputs.
    """
    taps = self.taps(refs, group)
    if self.g.algorithm is None:
      return taps
    step = -1 if reverse else 1
    return [self.g.algorithm.filter_transform(row[::step]) for row in taps]

  def vector(self, refs, name: str, group) -> jax.Array:
    """Load the values of a vector for a channel group."""
    if self.g.channels_in_lanes:
      return broadcast(getattr(refs, name)[...].reshape(1, LANES))
    column = self.g.rows.kernel_size**2 + self.names.index(name)
    return self._column(refs, column, group)

  def prologue(self, refs, group) -> Prologue:
    """Make the prologue of a channel group from its scale and offset."""
    scale, offset = (
      self.vector(refs, name, group) if name in self.names else None
      for name in ("scale", "offset")
    )
    return make_prologue(scale, offset, self.g.activation)

  def _column(self, refs, column, group):
    rows = _group_rows(group)
    values = refs.channel_inputs[rows, column : column + 1]
    return jnp.broadcast_to(values, TILE)


class ChannelOutputs(NamedTuple):
  """Per-channel results of a kernel.

  Attributes:
    g: Geometry of the call.
    filters_dtype: Data type of the filters' gradient; None if there is none.
    names: Names of the vectors.
  """

  g: Geometry
  filters_dtype: jnp.dtype | None
  names: tuple[str, ...]

  def results(self) -> dict[str, Result]:
    """Make the results of the kernel."""
    g, k = self.g, self.g.rows.kernel_size
    if not g.channels_in_lanes:
      width = self._tap_count + len(self.names)
      if not width:
        return {}
      shape = g.channels, width
      return {"channel_outputs": (shape, jnp.float32, _table_block(g, width))}
    results: dict[str, Result] = {
      name: (_row_shape(g), jnp.float32, _row_block(g)) for name in self.names
    }
    if self.filters_dtype is not None:
      filters = k, k, g.channels
      results["dfilters"] = filters, self.filters_dtype, _filters_block(k)
    return results

  def write(
    self,
    refs,
    group,
    vectors: Mapping[str, jax.Array],
    taps: Sequence[Sequence[jax.Array]] = (),
  ) -> None:
    """Write the results of a channel group.

    Args:
      refs: Refs of the kernel.
      group: Channel group.
      vectors: Value of each vector, `[1, 128]`, or `[8, 1]` in HWCN.
      taps: Value of each tap, of the same shape.
    """
    if self.g.channels_in_lanes:
      for name in self.names:
        ref = getattr(refs, name)
        ref[...] = vectors[name].reshape(ref.shape)
      for a, row in enumerate(taps):
        for b, tap in enumerate(row):
          refs.dfilters[a, b : b + 1] = tap.astype(refs.dfilters.dtype)
      return
    columns = [tap for row in taps for tap in row]
    columns += [vectors[name] for name in self.names]
    lane = lax.broadcasted_iota(jnp.int32, TILE, 1)
    table = jnp.zeros(TILE, jnp.float32)
    for i, column in enumerate(columns):
      table = jnp.where(lane == i, jnp.broadcast_to(column, TILE), table)
    refs.channel_outputs[_group_rows(group), :] = table[:, : len(columns)]

  def arrays(self, results: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Extract each vector `[c]`, and `dfilters`, from the kernel's results."""
    g, k = self.g, self.g.rows.kernel_size
    if g.channels_in_lanes:
      arrays = {name: results[name].reshape(-1) for name in self.names}
      if self.filters_dtype is not None:
        arrays["dfilters"] = results["dfilters"]
      return arrays
    if "channel_outputs" not in results:
      return {}
    table = results["channel_outputs"].T
    arrays = dict(zip(self.names, table[self._tap_count :], strict=True))
    if self.filters_dtype is not None:
      taps = table[: k * k].reshape(k, k, g.channels)
      arrays["dfilters"] = taps.astype(self.filters_dtype)
    return arrays

  @property
  def _tap_count(self) -> int:
    return 0 if self.filters_dtype is None else self.g.rows.kernel_size**2


def channel_bytes(g: Geometry) -> int:
  """Compute the VMEM of a kernel's channel inputs, outputs and sums."""
  tile = 4 * SUBLANES * LANES
  sums = g.groups * tile * (3 + g.rows.kernel_size * g.filter_columns)
  if g.channels_in_lanes:
    return sums + 4 * tile * (g.rows.kernel_size + _MOST_VECTORS)
  return sums + 4 * tile * g.groups


def present(vectors: Mapping[str, jax.Array | None]) -> tuple[str, ...]:
  """List the names of the vectors that are not None."""
  return tuple(name for name, array in vectors.items() if array is not None)


def _group_rows(group):
  return pl.ds(pl.multiple_of(group * SUBLANES, SUBLANES), SUBLANES)


def _row_shape(g: Geometry) -> tuple[int, ...]:
  return (g.channels,) if g.flat_vectors else (1, g.channels)


def _as_row(g: Geometry, vector) -> jax.Array:
  return vector.reshape(_row_shape(g))


def _row_block(g: Geometry) -> pl.BlockSpec:
  if g.flat_vectors:
    return pl.BlockSpec((LANES,), lambda c, n, i: (c,))
  return pl.BlockSpec((1, LANES), lambda c, n, i: (0, c))


def _filters_block(k: int) -> pl.BlockSpec:
  return pl.BlockSpec((k, k, LANES), lambda c, n, i: (0, 0, c))


def _table_block(g: Geometry, width: int) -> pl.BlockSpec:
  return pl.BlockSpec((g.blocks.sublanes, width), lambda c, n, i: (c, 0))
