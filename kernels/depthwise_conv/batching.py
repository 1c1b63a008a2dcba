"""Rule for `jax.vmap` of the TPU kernels: the mapped axis joins the channels.

A depthwise convolution computes each channel by itself, with its own filter,
scale, offset, moments and gradients. So examples side by side in the channel
axis need no other kernel, also if each has filters of its own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from ..common.layout import channel_axis
from ..selection.selection import select
from .selection import POLICY
from .settings import Call


def with_batching(
  run: Callable[..., Any], run_by_name: Callable[..., Any], call: Call
) -> Callable[..., Any]:
  """Give one direction of the TPU kernels its rule for `jax.vmap`.

  Args:
    run: Function of the direction's arguments that runs the kernels.
    run_by_name: Function of an implementation's name, a call and the same
      arguments. The joined shapes may need another plan or implementation.
    call: Call of one example.
  """
  batched = custom_vmap(run)

  @batched.def_vmap
  def rule(size, are_batched, *args):
    joined = jax.tree.map(
      lambda x, is_batched: _join(_mapped(x, is_batched, size), call),
      args,
      tuple(are_batched),
    )
    x, filters, *_ = jax.tree.leaves(joined)
    chosen = select(POLICY, call.selection.requested, x, filters, call.settings)
    whole = Call(call.settings, chosen)
    results = run_by_name(chosen.on_tpu, whole, *joined)
    are_results = jax.tree.map(lambda y: y.ndim > 0, results)
    return jax.tree.map(partial(_split, size, call), results), are_results

  return batched


def _mapped(x: jax.Array, is_batched: bool, size: int) -> jax.Array:
  return x if is_batched else jnp.broadcast_to(x, (size, *x.shape))


def _axis(ndim: int, call: Call) -> int:
  """Return the channels' axis of an image, filters or a vector."""
  return channel_axis(call.settings.layout) if ndim == 4 else ndim - 1


def _join(x: jax.Array, call: Call) -> jax.Array:
  """Move the first axis into the channels, inside each band."""
  ndim = x.ndim - 1
  if ndim == 0:
    return x[0]  # the moments' count, which all examples share
  axis = _axis(ndim, call)
  bands = call.settings.bands if ndim == 4 else 1
  before, channels, after = (
    x.shape[1 : axis + 1],
    x.shape[axis + 1],
    x.shape[axis + 2 :],
  )
  x = x.reshape(len(x), *before, bands, channels // bands, *after)
  x = jnp.moveaxis(x, 0, axis + 1)
  return x.reshape(*before, -1, *after)


def _split(size: int, call: Call, x: jax.Array) -> jax.Array:
  """Invert `_join`."""
  if x.ndim == 0:
    return x
  axis = _axis(x.ndim, call)
  bands = call.settings.bands if x.ndim == 4 else 1
  before, channels, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
  x = x.reshape(*before, bands, size, channels // (bands * size), *after)
  x = jnp.moveaxis(x, axis + 1, 0)
  return x.reshape(size, *before, -1, *after)
