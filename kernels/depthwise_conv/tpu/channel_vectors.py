"""What a kernel takes and gives per channel, in either layout.

With the channels in the lanes each is an operand of its own. As `[c]` it is
taken as it comes; the row `[1, c]` that TPU v3 needs is a copy, which costs
microseconds where a DMA has a microsecond's latency. With the channels in the
sublanes all are the columns of one array, `[c, values]`: a vector of its own
would take 512 bytes a channel.
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

_MOST_VECTORS = 5  # of either kernel, in or out
Taps = list[list[jax.Array]]
"""A register for each row and column of the filter."""


class Given(NamedTuple):
  """The filters and the per-channel vectors that a kernel is given.

  Attributes:
    g: The call.
    names: Of the vectors.
  """

  g: Geometry
  names: tuple[str, ...]

  def operands(
    self, filters: jax.Array, vectors: Mapping[str, jax.Array | None]
  ) -> dict[str, Operand]:
    """What holds them; of the vectors only those of `names`."""
    g, k = self.g, self.g.rows.kernel_size
    if g.channels_in_lanes:
      if g.blocks.pairs:
        # Else each step would convert them, one after the other.
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
    return {"given": (table.T, _table_block(g, len(table)))}

  def taps(self, refs, group) -> Taps:
    """The filters' taps of a group of channels."""
    k = range(self.g.rows.kernel_size)
    if self.g.channels_in_lanes:
      return [[broadcast(refs.filters[a, b : b + 1]) for b in k] for a in k]
    return [[self._column(refs, a * len(k) + b, group) for b in k] for a in k]

  def products(self, refs, group, *, reverse: bool = False) -> Taps:
    """The taps as the buffer's columns or points meet them.

    Args:
      refs: The kernel's.
      group: The group of channels.
      reverse: An input meets the taps in the other direction than an output.
    """
    taps = self.taps(refs, group)
    if self.g.algorithm is None:
      return taps
    step = -1 if reverse else 1
    return [self.g.algorithm.filter_transform(row[::step]) for row in taps]

  def vector(self, refs, name: str, group) -> jax.Array:
    """A vector's values of a group of channels."""
    if self.g.channels_in_lanes:
      return broadcast(getattr(refs, name)[...].reshape(1, LANES))
    column = self.g.rows.kernel_size**2 + self.names.index(name)
    return self._column(refs, column, group)

  def prologue(self, refs, group) -> Prologue:
    """That of a group of channels, from the vectors scale and offset."""
    scale, offset = (
      self.vector(refs, name, group) if name in self.names else None
      for name in ("scale", "offset")
    )
    return make_prologue(scale, offset, self.g.activation)

  def _column(self, refs, column, group):
    rows = _group_rows(group)
    return jnp.broadcast_to(refs.given[rows, column : column + 1], TILE)


class Wanted(NamedTuple):
  """The per-channel results of a kernel.

  Attributes:
    g: The call.
    taps: The filters' dtype where their gradient is wanted, else None.
    names: Of the vectors.
  """

  g: Geometry
  taps: jnp.dtype | None
  names: tuple[str, ...]

  def outputs(self) -> dict[str, Result]:
    """What holds them."""
    g, k = self.g, self.g.rows.kernel_size
    if not g.channels_in_lanes:
      width = self._taps_count + len(self.names)
      shape = g.channels, width
      return {"wanted": (shape, jnp.float32, _table_block(g, width))}
    outputs: dict[str, Result] = {
      name: (_row_shape(g), jnp.float32, _row_block(g)) for name in self.names
    }
    if self.taps is not None:
      filters = k, k, g.channels
      outputs["dfilters"] = filters, self.taps, _filters_block(k)
    return outputs

  def write(
    self,
    refs,
    group,
    vectors: Mapping[str, jax.Array],
    taps: Sequence[Sequence[jax.Array]] = (),
  ) -> None:
    """Writes a group's results, one for each of its channels.

    Args:
      refs: The kernel's.
      group: The group of channels.
      vectors: Name to `[1, 128]`, or `[8, 1]` in HWCN.
      taps: The same for each tap.
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
    refs.wanted[_group_rows(group), :] = table[:, : len(columns)]

  def arrays(self, results: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Each vector `[c]` by its name, and `dfilters`."""
    g, k = self.g, self.g.rows.kernel_size
    if g.channels_in_lanes:
      arrays = {name: results[name].reshape(-1) for name in self.names}
      if self.taps is not None:
        arrays["dfilters"] = results["dfilters"]
      return arrays
    table = results["wanted"].T
    arrays = dict(zip(self.names, table[self._taps_count :], strict=True))
    if self.taps is not None:
      taps = table[: k * k].reshape(k, k, g.channels)
      arrays["dfilters"] = taps.astype(self.taps)
    return arrays

  @property
  def _taps_count(self) -> int:
    return 0 if self.taps is None else self.g.rows.kernel_size**2


def vector_bytes(g: Geometry) -> int:
  """What a kernel takes of VMEM for them, in and out, and what it sums."""
  tile = 4 * SUBLANES * LANES
  sums = g.groups * tile * (3 + g.rows.kernel_size * g.products)
  if g.channels_in_lanes:
    return sums + 4 * tile * (g.rows.kernel_size + _MOST_VECTORS)
  return sums + 4 * tile * g.groups


def given_names(vectors: Mapping[str, jax.Array | None]) -> tuple[str, ...]:
  """Of those that are not None."""
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
