"""`pallas_call` with names for its operands."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

_ANY_ORDER = pltpu.GridDimensionSemantics.PARALLEL
_IN_ORDER = pltpu.GridDimensionSemantics.ARBITRARY

Operand = tuple[jax.Array, pl.BlockSpec]
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
) -> dict[str, jax.Array]:
  """Runs a kernel whose refs come by name, the first grid axis in any order.

  Args:
    kernel: Function of a namespace with a ref for each name below.
    name: For profiles.
    grid: Steps; the last axis is the innermost.
    inputs: Name to array and block.
    outputs: Name to shape, dtype and block.
    scratch: Name to buffer.
    vmem_limit_bytes: What the kernel may take of VMEM.
    cost: For XLA's scheduler.

  Returns:
    Name to array, of the outputs.
  """
  names = [*inputs, *outputs, *scratch]
  arrays, in_specs = zip(*inputs.values(), strict=True)
  axes = jax.typeof(arrays[0]).manual_axis_type
  results = pl.pallas_call(
    lambda *refs: kernel(
      SimpleNamespace(**dict(zip(names, refs, strict=True)))
    ),
    name=name,
    grid=grid,
    in_specs=in_specs,
    out_specs=[spec for _, _, spec in outputs.values()],
    out_shape=[
      jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=axes)
      for shape, dtype, _ in outputs.values()
    ],
    scratch_shapes=list(scratch.values()),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=[_ANY_ORDER, *[_IN_ORDER] * (len(grid) - 1)],
      vmem_limit_bytes=vmem_limit_bytes,
    ),
    cost_estimate=cost,
  )(*arrays)
  return dict(zip(outputs, results, strict=True))
