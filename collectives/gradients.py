"""The mean of gradients over devices."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from .mesh import ALL_DEVICES
from .varying import require_varying


def mean_gradients[Tree](
  tree: Tree, axis_names: str | Sequence[str] = ALL_DEVICES
) -> Tree:
  """The mean of each leaf over all devices, summed in float32.

  The gradients must be those of each device's own loss: take them with respect
  to parameters that went through `device_varying`. Otherwise JAX has summed
  them already, and their "mean" would be that sum; this is refused where types
  are checked (`check_vma=True`). XLA puts all leaves into one all-reduce, and
  the loss can travel along: `grads, loss = mean_gradients((grads, loss))`.

  Args:
    tree: pytree of floating-point arrays, inside `shard_map`.
    axis_names: the mesh axes to average over.

  Returns:
    The same pytree with the same dtypes, equal and typed as equal on all
    devices.

  Raises:
    ValueError: a leaf is not of a floating-point dtype, or is already the same
      on all devices along one of the axes.
  """
  for path, leaf in jax.tree.leaves_with_path(tree):
    _check(jax.tree_util.keystr(path), leaf, axis_names)
  with jax.named_scope("mean_gradients"):
    wide = jax.tree.map(lambda g: g.astype(_wide(g.dtype)), tree)
    means = lax.pmean(wide, axis_names)
    return jax.tree.map(lambda g, m: m.astype(g.dtype), tree, means)


def _check(name: str, leaf: jax.Array, axis_names: str | Sequence[str]) -> None:
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    raise ValueError(f"gradient {name} is {leaf.dtype}, not floating point")
  require_varying(
    f"gradient {name}",
    leaf,
    axis_names,
    cure="differentiate with respect to device_varying(parameters)",
  )


def _wide(dtype: jnp.dtype) -> jnp.dtype:
  return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)
