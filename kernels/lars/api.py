"""The public op: one LARS step of a tree of parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import (
  KeyPath,
  keystr,
  tree_flatten_with_path,
  tree_unflatten,
)

from ..dispatch import Requested, dispatch
from . import xla

PyTree = Any
Scalar = float | jax.Array

_IMPLEMENTATIONS = {"xla": xla.update}


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
  exclude: Callable[[KeyPath, jax.Array], bool] | None = None,
  implementation: Requested = None,
) -> tuple[PyTree, PyTree]:
  """One step of LARS with momentum, the learning rate inside the momentum.

  For each tensor `w` of `params` with gradient `g` and momentum buffer `v`:

      trust = trust_coefficient * |w| / (|g| + weight_decay * |w| + epsilon)
      trust = 1 where |w| = 0 or |g| = 0
      step  = learning_rate * trust * (g + weight_decay * w)
      v     = momentum * v + step
      w     = w - v               # nesterov: w - (momentum * v + step)

  and for an excluded one `step = learning_rate * g`. The norms are those of
  whole tensors, so each leaf must be one: not a shard of it, and not several
  layers stacked. The arithmetic is at least float32; norms neither overflow
  nor underflow as long as float32 can hold them.

  It differs from `optax.lars` in the denominator (`|g + decay * w|` there), and
  from LARS with the rate outside the momentum whenever the rate changes.

  Args:
    params: tree of floating-point arrays, any shapes.
    grads: tree of the same structure and shapes.
    momenta: tree of the same structure and shapes; zeros at first. float32 is
      advised whatever the dtype of `params`.
    learning_rate: scalar, may be traced, not negative.
    weight_decay: scalar, may be traced, not negative.
    trust_coefficient: scalar, may be traced, not negative.
    momentum: scalar, may be traced, not negative.
    epsilon: scalar, may be traced, not negative.
    nesterov: whether to step by the momentum's next value.
    exclude: called with each leaf's key path and the leaf of `params`; true
      leaves out the trust ratio and the decay. None excludes nothing; the
      training recipes exclude biases and batch norm.
    implementation: a name, several in order, or None for the best there is;
      "xla" exists.

  Returns:
    The new `params` and the new `momenta`, each with the structure and dtypes
    it came with.

  Raises:
    ValueError: trees of different structure, leaves of different shape or not
      of floating point, a negative or NaN Python number, an unknown
      implementation.
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
  in `models/official/efficientnet/lars_optimizer.py` of tensorflow/tpu.
  """
  scalars = {
    "learning_rate": learning_rate,
    "weight_decay": weight_decay,
    "trust_coefficient": trust_coefficient,
    "momentum": momentum,
    "epsilon": epsilon,
  }
  for name, value in scalars.items():
    _check_scalar(name, value)
  with_paths, structure = tree_flatten_with_path(params)
  paths = [path for path, _ in with_paths]
  w = [jnp.asarray(leaf) for _, leaf in with_paths]
  g = _matching_leaves("grads", grads, paths, w, structure)
  v = _matching_leaves("momenta", momenta, paths, w, structure)
  for path, leaf in zip(paths, w, strict=True):
    _check_floating("params", path, leaf)
  adapted = [
    exclude is None or not exclude(path, leaf)
    for path, leaf in zip(paths, w, strict=True)
  ]
  with jax.named_scope("lars_update"):
    w, v = dispatch(
      "lars_update",
      _IMPLEMENTATIONS,
      implementation,
      w,
      g,
      v,
      adapted,
      nesterov=nesterov,
      **scalars,
    )
  return tree_unflatten(structure, w), tree_unflatten(structure, v)


def _check_scalar(name: str, value: Scalar) -> None:
  if jnp.shape(value) != ():
    raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}")
  # An array's value is not looked at: it may be traced, or not computed yet.
  if not isinstance(value, jax.Array) and not value >= 0:
    raise ValueError(f"{name} must not be below 0, got {value}")


def _matching_leaves(name, tree, paths, params, structure) -> list[jax.Array]:
  """The leaves of `tree`, known to fit those of the parameters one by one."""
  with_paths, its_structure = tree_flatten_with_path(tree)
  if its_structure != structure:
    raise ValueError(
      _structure_message(
        name, [path for path, _ in with_paths], paths, its_structure, structure
      )
    )
  leaves = [jnp.asarray(leaf) for _, leaf in with_paths]
  for path, leaf, param in zip(paths, leaves, params, strict=True):
    if leaf.shape != param.shape:
      raise ValueError(
        f"{name} has shape {leaf.shape} at {keystr(path)}, "
        f"params has {param.shape}"
      )
    _check_floating(name, path, leaf)
  return leaves


def _structure_message(name, its_paths, paths, its_structure, structure) -> str:
  missing = [path for path in paths if path not in its_paths]
  if missing:
    return f"{name} has no leaf at {keystr(missing[0])}, params has one"
  extra = [path for path in its_paths if path not in paths]
  if extra:
    return f"{name} has a leaf at {keystr(extra[0])}, params has none"
  return f"{name} is a {its_structure}, params a {structure}"


def _check_floating(name: str, path: KeyPath, leaf: jax.Array) -> None:
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    raise ValueError(
      f"{name} at {keystr(path)} is {leaf.dtype}; "
      "lars_update takes floating-point leaves only"
    )
