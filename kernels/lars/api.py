"""Public op: one LARS step for a tree of parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import (
  KeyPath,
  PyTreeDef,
  tree_flatten_with_path,
  tree_unflatten,
)

from ..packed.packing import Packed, Shard
from ..selection.requested import Requested
from ..selection.selection import Selection, run, select
from . import packed, xla
from . import tpu as pallas_tpu
from .checks import (
  as_array,
  check_floating,
  check_not_packed,
  check_packed,
  check_settings,
  matching_leaves,
)
from .formula import Scalar, Settings, Variant
from .selection import PACKED, TENSORS

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
  """Update parameters by one step of LARS, by default TensorFlow's variant.

  For each tensor `w` of `params` with gradient `g` and momentum buffer `v`:

      trust = trust_coefficient * |w| / (|g| + weight_decay * |w| + epsilon)
      trust = 1 where |w| = 0 or |g| = 0
      step  = learning_rate * trust * (g + weight_decay * w)
      v     = momentum * v + step
      w     = w - v               # nesterov: w - (momentum * v + step)

  For an excluded tensor `step = learning_rate * g`. Each leaf has one norm, so
  a leaf must be one tensor, not several layers stacked. The arithmetic is at
  least float32. Norms that float32 can hold neither overflow nor underflow.

  The variant `"optax"` has `|g + weight_decay * w|` in place of `|g|` and no
  `weight_decay * |w|` in the denominator, like `optax.lars`. In the variant
  `"scaled"` the current rate scales the whole momentum:

      v = momentum * v + (g + weight_decay * w)
      w = w - learning_rate * trust * v

  On a TPU two kernels update packed trees (`Packed`): the first reads `params`
  and `grads` for the norms, the second overwrites `params` and `momenta`. An
  unpacked tree takes several kernels per leaf. Donate `params` and `momenta`
  to the jitted function (`donate_argnums`), or XLA copies them.

  Args:
    params: Tree of floating-point arrays of any shapes; or `Packed`, whole or
      this device's shard of it.
    grads: Gradients, of the same structure and shapes.
    momenta: Momentum buffers, of the same structure and shapes; zeros at
      first. Use float32 whatever the dtype of `params`.
    learning_rate: Scalar, may be traced, not negative.
    weight_decay: Scalar, may be traced, not negative.
    trust_coefficient: Scalar, may be traced, not negative.
    momentum: Scalar, may be traced, not negative.
    epsilon: Scalar, may be traced, not negative.
    nesterov: True to step by the momentum's next value.
    variant: "tensorflow", "optax" or "scaled".
    exclude: Function of a leaf's key path and the leaf of `params` (a
      `jax.ShapeDtypeStruct` if packed). True leaves out the trust ratio and
      the weight decay. None excludes nothing; the training recipes exclude
      biases and batch norm.
    shard: This device's shard of packed trees, inside `shard_map`. One small
      all-reduce gives the norms of whole tensors.
    implementation: "xla", "pallas_tpu", a sequence of them to try in order, or
      None to choose. "pallas_tpu" packs trees that are not packed, which takes
      longer than the kernels save.

  Returns:
    New `params` and new `momenta`, with the structure and dtypes of the old.

  Raises:
    ValueError: The trees differ in structure or shapes, a leaf is not
      floating-point, a Python number is negative or NaN, the variant or
      implementation is unknown, or the shards do not fit the packing.
    NotImplementedError: The named implementation does not support the inputs.

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

  Source: You, Gitman and Ginsburg, arXiv:1708.03888, algorithm 1, in the form
  of `models/official/efficientnet/lars_optimizer.py` of tensorflow/tpu;
  `optax.lars`; and, from memory, the scaled momentum of MLPerf 0.6's reference
  in Kumar et al., arXiv:1909.09756.
  """
  settings = Settings(
    *(learning_rate, weight_decay, trust_coefficient, momentum, epsilon),
    *(nesterov, variant),
  )
  check_settings(settings)
  with jax.named_scope("lars_update"):
    if isinstance(params, Packed):
      adapted = _check_packed_trees(params, grads, momenta, exclude)
      selection = select(PACKED, implementation, params, adapted, shard)
      update = partial(
        packed.update, adapted=adapted, settings=settings, shard=shard
      )
      implementations = {
        "xla": partial(update, by=xla),
        "pallas_tpu": partial(update, by=pallas_tpu),
      }
      return run(selection, implementations, params, grads, momenta)
    tensors = _flatten(params, grads, momenta, exclude, shard)
    selection = select(TENSORS, implementation, *tensors.arguments)
    static: dict[str, Any] = {
      "adapted": tensors.adapted,
      "settings": settings,
    }
    w, v = run(
      selection,
      {
        "xla": partial(xla.update, **static),
        "pallas_tpu": partial(packed.update_trees, **static),
      },
      *(tensors.params, tensors.grads, tensors.momenta),
    )
  return tensors.unflatten(w), tensors.unflatten(v)


def describe(
  params: PyTree,
  grads: PyTree,
  momenta: PyTree,
  exclude: Exclude | None,
  shard: Shard | None,
  implementation: Requested,
  **settings: Any,
) -> Selection:
  """Select as `lars_update` does, given all of its arguments."""
  check_settings(Settings(**settings))
  if isinstance(params, Packed):
    adapted = _check_packed_trees(params, grads, momenta, exclude)
    return select(PACKED, implementation, params, adapted, shard)
  tensors = _flatten(params, grads, momenta, exclude, shard)
  return select(TENSORS, implementation, *tensors.arguments)


def lars_steps(
  params: PyTree,
  grads: PyTree,
  momenta: PyTree,
  *,
  exclude: Exclude | None = None,
  **settings: Any,
) -> tuple[PyTree, PyTree]:
  """Compute the steps that `lars_update` subtracts, and the new momenta.

  For optimizers that return updates instead of parameters. The steps are at
  least float32.
  """
  checked = Settings(**settings)
  check_settings(checked)
  tensors = _flatten(params, grads, momenta, exclude)
  steps, momenta = xla.steps(*tensors.arguments, settings=checked)
  return tensors.unflatten(steps), tensors.unflatten(momenta)


class _Tensors(NamedTuple):
  """Leaves of three trees of one structure.

  Attributes:
    params: Weights.
    grads: Gradients of the weights.
    momenta: Momentum buffers.
    adapted: True for each leaf that gets a trust ratio and weight decay.
    structure: Structure of the trees.
  """

  params: list[jax.Array]
  grads: list[jax.Array]
  momenta: list[jax.Array]
  adapted: list[bool]
  structure: PyTreeDef

  @property
  def arguments(self) -> tuple[list, list, list, list[bool]]:
    """All fields but the structure."""
    return self.params, self.grads, self.momenta, self.adapted

  def unflatten(self, leaves: list[jax.Array]) -> PyTree:
    """Build a tree of the common structure."""
    return tree_unflatten(self.structure, leaves)


def _flatten(params, grads, momenta, exclude, shard=None) -> _Tensors:
  """Flatten three trees after checking that they fit each other."""
  if shard is not None:
    raise ValueError(
      f"shard= needs Packed params, got a {type(params).__name__}; pack "
      "params, grads and momenta, or leave shard out"
    )
  check_not_packed(params)
  with_paths, structure = tree_flatten_with_path(params)
  paths = [path for path, _ in with_paths]
  w = [as_array(leaf) for _, leaf in with_paths]
  g = matching_leaves("grads", grads, paths, w, structure)
  v = matching_leaves("momenta", momenta, paths, w, structure)
  for path, leaf in zip(paths, w, strict=True):
    check_floating("params", path, leaf)
  return _Tensors(w, g, v, _adapted(paths, w, exclude), structure)


def _check_packed_trees(params, grads, momenta, exclude) -> list[bool]:
  """Check that packed trees fit, and list the adapted leaves."""
  packing = params.packing
  for name, tree in (("grads", grads), ("momenta", momenta)):
    check_packed(name, tree, params)
  leaves = [jax.ShapeDtypeStruct(s, jnp.float32) for s in packing.shapes]
  return _adapted(packing.paths, leaves, exclude)


def _adapted(paths, leaves, exclude) -> list[bool]:
  return [
    exclude is None or not exclude(path, leaf)
    for path, leaf in zip(paths, leaves, strict=True)
  ]
