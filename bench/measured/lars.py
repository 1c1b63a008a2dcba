"""Times of the LARS update of a whole network on the default device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...kernels import Packed
from ..workloads.collectives import model_sizes
from ..workloads.lars import RATE, updates
from .difference import relative_difference
from .timing import Timing, compile_and_time


def time_updates(model: str, *, runs: int) -> list[dict[str, Any]]:
  """Time each implementation of the update.

  Args:
    model: Member of the family.
    runs: Number of timed runs of each.

  Returns:
    A row for each: its speed as a multiple of the first's, the largest
    `relative_difference` of its new weights to the first's, times and memory.
  """
  params = model_sizes(model).params
  trees = [_random(params, seed) for seed in range(3)]
  timings = {}
  for update in updates(params):
    args = map(_filled, update.args, [*trees, RATE])
    timings[update.name] = compile_and_time(update.function, *args, runs=runs)
  first = next(iter(timings.values()))
  return [
    {
      "update": name,
      "times faster": first.median / timing.median,
      "difference": relative_difference(*map(_weights, (first, timing))),
      **timing.row(),
    }
    for name, timing in timings.items()
  ]


def _random(params: Any, seed: int) -> Any:
  random = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: random.normal(size=x.shape).astype(x.dtype), params
  )


def _filled(shapes: Any, values: Any) -> Any:
  """Convert values to an argument of an update.

  Args:
    shapes: The argument's shapes: a `Packed`, a tree, a scalar, or the state of
      optax, which is a tuple.
    values: Tree or scalar.
  """
  if isinstance(shapes, Packed):
    return Packed(shapes.packing.pack(values), shapes.packing)
  if isinstance(shapes, tuple):
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    trace = jax.tree.map(jnp.negative, values)  # optax adds its momenta
    return optax.tree_utils.tree_set(state, trace=trace)
  return jax.tree.map(jnp.asarray, values)


def _weights(timing: Timing) -> Any:
  """Return the tree of weights after the first update."""
  params, _ = timing.first
  return params.unpack() if isinstance(params, Packed) else params
