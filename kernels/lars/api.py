"""The public op: one LARS step of a tree of parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import KeyPath, tree_flatten_with_path, tree_unflatten

from ..packed.packing import Packed, Shard
from ..selection.dispatch import Requested, dispatch
from ..selection.for_tpu import for_tpu
from . import packed, xla
from . import tpu as pallas_tpu
from .checks import (
  check_floating,
  check_not_packed,
  check_packed,
  check_settings,
  matching_leaves,
)
from .formula import Scalar, Settings, Variant

PyTree = Any
Exclude = Callable[[KeyPath, jax.Array], bool]


def lars_update(
  params: PyTree,
  grads: PyTree,
  momenta: PyTree,
  *,
  learning_rate: Scalar,
  weight_decay: Scalar,
  trust_coefficient: Scalar = 0.001,
  momentum: Scalar = 0.9,
  epsilon: Scalar = 0.0,
  nesterov: bool = False,
  variant: Variant = "tensorflow",
  exclude: Exclude | None = None,
  shard: Shard | None = None,
  implementation: Requested = None,
) -> tuple[PyTree, PyTree]:
  """One step of LARS with momentum, by default as TensorFlow has it.

  For each tensor `w` of `params` with gradient `g` and momentum buffer `v`:

      trust = trust_coefficient * |w| / (|g| + weight_decay * |w| + epsilon)
      trust = 1 where |w| = 0 or |g| = 0
      step  = learning_rate * trust * (g + weight_decay * w)
      v     = momentum * v + step
      w     = w - v               # nesterov: w - (momentum * v + step)

  and for an excluded one `step = learning_rate * g`. The norms are those of
  whole tensors, so each leaf must be one, and not several layers stacked. The
  arithmetic is at least float32; norms neither overflow nor underflow as long
  as float32 can hold them.

  The other variants are `"optax"`, with `|g + weight_decay * w|` in place of
  both `|g|` and the sum, as `optax.lars` has it; and `"scaled"`, where the
  current rate scales the whole momentum:

      v = momentum * v + (g + weight_decay * w)
      w = w - learning_rate * trust * v

  Packed trees (`Packed`) are updated by two kernels on a TPU, one that reads
  `params` and `grads` for the norms and one that overwrites `params` and
  `momenta`, where a list of tensors takes several kernels for each. Give the
  jitted function them to keep: `donate_argnums`.

  Args:
    params: tree of floating-point arrays, any shapes; or `Packed`, whole or
      this device's shard of it.
    grads: tree of the same structure and shapes.
    momenta: tree of the same structure and shapes; zeros at first. float32 is
      advised whatever the dtype of `params`.
    learning_rate: scalar, may be traced, not negative.
    weight_decay: scalar, may be traced, not negative.
    trust_coefficient: scalar, may be traced, not negative.
    momentum: scalar, may be traced, not negative.
    epsilon: scalar, may be traced, not negative.
    nesterov: whether to step by the momentum's next value.
    variant: "tensorflow", "optax" or "scaled".
    exclude: called with each leaf's key path and the leaf of `params` (its
      shape and dtype, where they are packed); true leaves out the trust ratio
      and the decay. None excludes nothing; the training recipes exclude biases
      and batch norm.
    shard: which shard of packed trees this device has, inside `shard_map`; the
      norms are those of whole tensors all the same, with one small all-reduce.
    implementation: a name, several in order, or None for the best there is;
      "xla" and "pallas_tpu" exist. The latter packs trees that are not packed,
      which takes longer than it gains.

  Returns:
    The new `params` and the new `momenta`, each with the structure and dtypes
    it came with.

  Raises:
    ValueError: trees of different structure, leaves of different shape or not
      of floating point, a negative or NaN Python number, an unknown variant or
      implementation, a shard that the packing does not have.
    NotImplementedError: the implementation asked for cannot do this.

  >>> params = {"kernel": jnp.array([3.0, 4.0])}
  >>> grads = {"kernel": jnp.array([0.0, 5.0])}
  >>> momenta = jax.tree.map(jnp.zeros_like, params)
  >>> params, momenta = lars_update(
  ...   params,
  ...   grads,
  ...   momenta,
  ...   learning_rate=2.5,
  ...   weight_decay=0.25,
  ...   trust_coefficient=0.5,
  ... )
  >>> print(params["kernel"], momenta["kernel"])
  [ 2.25 -2.  ] [0.75 6.  ]

  Source: You, Gitman and Ginsburg, arXiv:1708.03888, algorithm 1, as written
  in `models/official/efficientnet/lars_optimizer.py` of tensorflow/tpu;
  `optax.lars`; the scaled momentum of MLPerf 0.6's reference, in Kumar et al.,
  arXiv:1909.09756 (from memory: the page was not at hand).
  """
  settings = Settings(
    *(learning_rate, weight_decay, trust_coefficient, momentum, epsilon),
    *(nesterov, variant),
  )
  check_settings(settings)
  with jax.named_scope("lars_update"):
    if isinstance(params, Packed):
      return _update_packed(
        *(params, grads, momenta, settings, exclude, shard, implementation)
      )
    if shard is not None:
      raise ValueError("a shard is of Packed params, these are a tree")
    return _update_trees(
      *(params, grads, momenta, settings, exclude, implementation)
    )


def lars_steps(
  params: PyTree,
  grads: PyTree,
  momenta: PyTree,
  *,
  exclude: Exclude | None = None,
  **settings: Any,
) -> tuple[PyTree, PyTree]:
  """What `lars_update` subtracts from a tree of parameters, and the momenta.

  The steps are at least float32. For optimizers that hand on their updates.
  """
  checked = Settings(**settings)
  check_settings(checked)
  return _per_tensor(xla.steps, params, grads, momenta, checked, exclude)


def _update_trees(params, grads, momenta, settings, exclude, implementation):
  def update(*args):
    return dispatch(
      "lars_update",
      {"xla": xla.update, "pallas_tpu": packed.update_trees},
      # Packing three trees takes longer than the kernels gain.
      implementation or "xla",
      *args,
    )

  return _per_tensor(update, params, grads, momenta, settings, exclude)


def _per_tensor(update, params, grads, momenta, settings, exclude):
  check_not_packed(params)
  with_paths, structure = tree_flatten_with_path(params)
  paths = [path for path, _ in with_paths]
  w = [jnp.asarray(leaf) for _, leaf in with_paths]
  g = matching_leaves("grads", grads, paths, w, structure)
  v = matching_leaves("momenta", momenta, paths, w, structure)
  for path, leaf in zip(paths, w, strict=True):
    check_floating("params", path, leaf)
  w, v = update(w, g, v, _adapted(paths, w, exclude), settings)
  return tree_unflatten(structure, w), tree_unflatten(structure, v)


def _update_packed(
  params, grads, momenta, settings, exclude, shard, implementation
):
  packing = params.packing
  for name, tree in (("grads", grads), ("momenta", momenta)):
    check_packed(name, tree, params)
  leaves = [jax.ShapeDtypeStruct(s, jnp.float32) for s in packing.shapes]
  return dispatch(
    "lars_update",
    {
      "xla": partial(packed.update, by=xla),
      "pallas_tpu": partial(packed.update, by=pallas_tpu),
    },
    for_tpu(implementation),
    *(params, grads, momenta, _adapted(packing.paths, leaves, exclude)),
    *(settings, shard),
  )


def _adapted(paths, leaves, exclude) -> list[bool]:
  return [
    exclude is None or not exclude(path, leaf)
    for path, leaf in zip(paths, leaves, strict=True)
  ]
