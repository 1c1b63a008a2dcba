"""`pallas_call` with names for its operands."""

from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

_ANY_ORDER = pltpu.GridDimensionSemantics.PARALLEL
_IN_ORDER = pltpu.GridDimensionSemantics.ARBITRARY

Operand = tuple[Any, Any]
Result = tuple[tuple[int, ...], Any, pl.BlockSpec]


def tpu_call(
  kernel: Callable[[Any], None],
  *,
  name: str,
  grid: tuple[int, ...],
  inputs: Mapping[str, Operand],
  outputs: Mapping[str, Result],
  scratch: Mapping[str, Any],
  vmem_limit_bytes: int,
  cost: pl.CostEstimate,
  prefetched: Mapping[str, jax.Array] | None = None,
  overwrites: Mapping[str, str] | None = None,
  parallel: bool = True,
) -> dict[str, jax.Array]:
  """Run a kernel that takes its refs by name.

  Args:
    kernel: Function of a namespace that has a ref for each name below, or a
      pytree of refs if the operand is a pytree.
    name: Name of the kernel in profiles.
    grid: Number of steps along each axis; the last axis is the innermost.
    inputs: Array and block of each input, or pytrees of both.
    outputs: Shape, dtype and block of each output.
    scratch: Buffer of each scratch.
    vmem_limit_bytes: VMEM that the kernel may use.
    cost: Estimate for XLA's scheduler.
    prefetched: int32 array of each name in scalar memory. The index maps of
      blocks take their refs after the grid indices.
    overwrites: Input whose memory an output reuses, by the output's name.
    parallel: True to run the first grid axis in any order, on all cores; False
      to run it in order.

  Returns:
    The output arrays by name.
  """
  prefetched, overwrites = prefetched or {}, overwrites or {}
  names = [*prefetched, *inputs, *outputs, *scratch]
  arrays, in_specs = zip(*inputs.values(), strict=True)
  operands = {**prefetched, **dict(zip(inputs, arrays, strict=True))}
  axes = _manual_axes(jax.tree.leaves(arrays))
  first_axis = _ANY_ORDER if parallel else _IN_ORDER
  results = pl.pallas_call(
    lambda *refs: kernel(
      SimpleNamespace(**dict(zip(names, refs, strict=True)))
    ),
    name=name,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=len(prefetched),
      grid=grid,
      in_specs=in_specs,
      out_specs=[spec for _, _, spec in outputs.values()],
      scratch_shapes=list(scratch.values()),
    ),
    out_shape=[
      jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=axes)
      for shape, dtype, _ in outputs.values()
    ],
    input_output_aliases={
      _position(operands, source): list(outputs).index(output)
      for output, source in overwrites.items()
    },
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=[first_axis, *[_IN_ORDER] * (len(grid) - 1)],
      vmem_limit_bytes=vmem_limit_bytes,
    ),
    cost_estimate=cost,
  )(*operands.values())
  return dict(zip(outputs, results, strict=True))


def _manual_axes(arrays: Iterable[jax.Array]) -> Any:
  """Return the type of the array that varies over most axes of the mesh."""
  types = [jax.typeof(array).manual_axis_type for array in arrays]
  return max(types, key=lambda axes: len(axes.varying))


def _position(operands: Mapping[str, Any], name: str) -> int:
  """Count the arrays before an operand; the operands may be pytrees."""
  names = list(operands)
  before = names[: names.index(name)]
  return len(jax.tree.leaves([operands[other] for other in before]))
