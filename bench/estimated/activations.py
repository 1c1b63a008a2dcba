"""Activations that a network keeps for backward, and the largest batches."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Var

from ...model import EfficientNet, ModelSpec, model_spec
from ...model.bands import Sizes, choose_bands
from ...model.remat import bytes_kept, bytes_to_keep
from ...model.spec import block_specs
from ..plain.model import PlainEfficientNet
from .static import target

_STEP = 8  # images
_MOST = 4096  # images


def activation_rows(
  models: Sequence[str], *, chips: Sequence[str]
) -> list[dict[str, Any]]:
  """Count kept bytes in bfloat16, and estimate the largest batches.

  Args:
    models: Members of the family.
    chips: Names from `CHIPS`.

  Returns:
    A row for each model: `model`; `plain_bytes` and `bytes`, the bytes of one
    image's arrays that the network in plain JAX and ours keep for the backward
    pass, with nothing computed again; their `ratio`; and for each chip `batch
    on CHIP`, the largest multiple of 8 images on a core that fits in memory by
    the estimate of `model.remat`.

  Raises:
    UsageError: libtpu is missing.
  """
  return [_row(name, chips) for name in models]


def kept_arrays(
  network: type[EfficientNet], spec: ModelSpec, batch: int
) -> list[jax.ShapeDtypeStruct]:
  """List the arrays that a network's derivative holds, in bfloat16.

  Args:
    network: Class of the network.
    spec: Specification of the network, without dropout.
    batch: Number of images.
  """
  model = nnx.eval_shape(lambda: network(spec, rngs=nnx.Rngs(0)))
  parts: Any = nnx.split(model, nnx.Param, ...)
  graph, params, rest = parts
  side = spec.resolution
  images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.bfloat16)

  def logits(images, rest, params):
    return nnx.merge(graph, params, rest, copy=True)(images)

  def kept(images, rest, params):
    _, vjp = jax.vjp(partial(logits, images, rest), params)
    return jax.tree.leaves(vjp)

  jaxpr = jax.make_jaxpr(kept)(images, rest, params).jaxpr
  arrays: set[Any] = {x for x in jaxpr.outvars if isinstance(x, Var)}
  return [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in arrays]


def largest_batch(name: str, chip: str) -> int:
  """Return the largest batch on a core whose kept arrays fit in memory."""
  with target(chip):
    fitting = 0
    step = _MOST
    while step >= _STEP:
      if _fits(name, fitting + step):
        fitting += step
      step //= 2
  return fitting


def _row(name: str, chips: Sequence[str]) -> dict[str, Any]:
  spec = model_spec(name, dropout=0.0, survival_prob=1.0)
  plain, ours = (
    _kept_bytes(network, spec) for network in (PlainEfficientNet, EfficientNet)
  )
  batches = {f"batch on {chip}": largest_batch(name, chip) for chip in chips}
  return {
    "model": name,
    "plain_bytes": plain,
    "bytes": ours,
    "ratio": ours / plain,
    **batches,
  }


def _kept_bytes(network: type[EfficientNet], spec: ModelSpec) -> float:
  """Count the bytes that a network keeps of one image."""
  few, many = (
    sum(x.size * x.dtype.itemsize for x in kept_arrays(network, spec, batch))
    for batch in (_STEP, 2 * _STEP)
  )
  return (many - few) / _STEP


def _fits(name: str, batch: int) -> bool:
  spec = model_spec(name)
  side = spec.resolution
  images = Sizes(side, side, batch, jnp.dtype(jnp.bfloat16))
  sizes = images.strided(spec.stem_stride)
  blocks = block_specs(spec)
  bands = choose_bands(sizes, blocks)
  kept = bytes_kept(sizes, blocks, bands)
  limit = bytes_to_keep(sizes, blocks, bands)
  assert limit is not None
  return sum(rest for _, rest in kept) <= limit
