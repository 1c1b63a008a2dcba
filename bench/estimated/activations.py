"""What a network keeps for its backward pass, and how many images fit."""

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

_STEP = 8  # images, of a batch
_MOST = 4096


def activation_rows(
  models: Sequence[str], *, chips: Sequence[str]
) -> list[dict[str, Any]]:
  """What the members of the family keep, in bfloat16, and the batches they fit.

  Args:
    models: Of the family.
    chips: Of `static.CHIPS`.

  Returns:
    A row for each: `model`; bytes of an image's arrays that are kept for the
    backward pass, `plain_bytes` by the network in plain JAX and `bytes` by
    ours, none of them computed again, and their `ratio`; and for each chip the
    largest `batch on CHIP`, a multiple of 8 on a core, for which `model.remat`
    expects all to fit: an ESTIMATE.

  Raises:
    UsageError: libtpu is missing.
  """
  return [_row(name, chips) for name in models]


def kept_arrays(
  network: type[EfficientNet], spec: ModelSpec, batch: int
) -> list[jax.ShapeDtypeStruct]:
  """What a network in bfloat16 keeps: the arrays of its derivative.

  Args:
    network: Which.
    spec: Of it; without dropout.
    batch: Images.
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
  """Images on a core of which the memory holds what has to be kept."""
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
  """Of an image."""
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
