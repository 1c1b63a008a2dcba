"""Ops on images whose batch is split over an explicit mesh.

In explicit mode, the default of `jax.make_mesh`, the type of an array names the
mesh axes that it is split over. An op then runs on each device's images inside
`jax.shard_map`, and the moments are merged over the devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from .layout import Layout, batch_axis
from .moment_sums import with_static_count
from .moments import Moments


def batch_shards(op: str, x: Any, layout: Layout) -> tuple[str, ...]:
  """Return the explicit mesh axes that the batch is split over.

  Args:
    op: Name of the op, for messages.
    x: Image of `layout`.
    layout: Order of the axes of x.

  Raises:
    ValueError: Another axis of x is split.
  """
  if x.ndim != 4:  # `check_image` refuses it
    return ()
  spec = jax.typeof(x).sharding.spec
  for name, axes in zip(layout, spec, strict=True):
    if axes is not None and name != "N":
      raise ValueError(
        f"{op}: x of shape {x.shape} in {layout} is split along "
        f"{name.lower()}, {spec}; the op takes a split batch alone, so call "
        "jax.sharding.reshard first"
      )
  axes = spec[batch_axis(layout)] or ()
  return (axes,) if isinstance(axes, str) else tuple(axes)


def over_shards(
  op: Callable[..., Any],
  axes: tuple[str, ...],
  layout: Layout,
  x: jax.Array,
  *args: Any,
) -> Any:
  """Run an op on each device's images, and merge the moments.

  Args:
    op: Function of x and the other arguments to arrays with a batch axis, and
      `Moments`.
    axes: Mesh axes that the batch of x is split over.
    layout: Order of the axes of x and of the results.
    x: Image.
    *args: Pytrees of arrays without a batch axis; None is one of them.
  """
  args = jax.tree.map(lambda a: jax.sharding.reshard(a, P()), args)
  whole = jax.ShapeDtypeStruct(x.shape, x.dtype)
  shapes = jax.eval_shape(op, whole, *args)
  image = _spec_of(4, layout, axes)
  results = jax.shard_map(
    lambda x, *args: _map(partial(_merged, axes), op(x, *args)),
    mesh=jax.typeof(x).sharding.mesh,
    in_specs=(image, *jax.tree.map(lambda _: P(), args)),
    out_specs=_map(
      lambda r: _spec_of(getattr(r, "ndim", 1), layout, axes), shapes
    ),
    axis_names=set(axes),
  )(x, *args)
  y = next((r for r in jax.tree.leaves(results) if r.ndim == 4), x)
  return _map(
    lambda r: with_static_count(r, y) if isinstance(r, Moments) else r, results
  )


def _map(function, results):
  """Apply a function to arrays and to whole `Moments`."""
  return jax.tree.map(
    function, results, is_leaf=lambda r: isinstance(r, Moments)
  )


def _spec_of(ndim: int, layout: Layout, axes: tuple[str, ...]) -> P:
  """Return the spec of an image, of spatial means, or of a vector."""
  names = {4: layout, 2: layout.replace("H", "").replace("W", "")}
  return P(*(axes if name == "N" else None for name in names.get(ndim, "")))


def _merged(axes: tuple[str, ...], result: Any) -> Any:
  """Merge moments of equally many values (Chan, Golub and LeVeque 1979)."""
  if not isinstance(result, Moments):
    return result
  count, mean, m2 = result
  devices = lax.axis_size(axes)
  merged = lax.psum(mean, axes) / devices
  m2 = lax.psum(m2 + count * jnp.square(mean - merged), axes)
  return Moments(jnp.float32(count * devices), merged, m2)
