"""Mean of gradients over devices."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from .mesh import ALL_DEVICES
from .varying import require_varying


def mean_gradients[Tree](
  tree: Tree, axis_names: str | Sequence[str] = ALL_DEVICES
) -> Tree:
  """Average each leaf over all devices, summed in float32.

  The gradients must be of each device's own loss: differentiate with respect to
  parameters that went through `device_varying`. Otherwise JAX has summed the
  gradients already, and their mean would be that sum; with `check_vma=True`
  this function then raises. XLA combines all leaves into one all-reduce, and
  the loss can join: `grads, loss = mean_gradients((grads, loss))`.

  Args:
    tree: Pytree of floating-point arrays, inside `shard_map`.
    axis_names: Mesh axes to average over.

  Returns:
    Pytree of the same structure and dtypes, equal and typed as equal on all
    devices.

  Raises:
    ValueError: A leaf does not have a floating-point dtype, or is already the
      same on all devices along one of the axes.

  >>> from podscale.collectives import device_varying, group_mesh
  >>> mesh = group_mesh(jax.devices()[:1])
  >>> P = jax.sharding.PartitionSpec
  >>> def gradient(w, x):
  ...   grad = jax.grad(lambda w: jnp.sum(w * x))(device_varying(w))
  ...   return mean_gradients(grad)
  >>> gradient = jax.shard_map(
  ...   gradient, mesh=mesh, in_specs=(P(), P(ALL_DEVICES)), out_specs=P()
  ... )
  >>> print(gradient(jnp.float32(2), jnp.arange(4.0)))
  6.0
  """
  for path, leaf in jax.tree.leaves_with_path(tree):
    _check(jax.tree_util.keystr(path), leaf, axis_names)
  with jax.named_scope("mean_gradients"):
    wide = jax.tree.map(lambda g: g.astype(_wide(g.dtype)), tree)
    means = lax.pmean(wide, axis_names)
    return jax.tree.map(lambda g, m: m.astype(g.dtype), tree, means)


def _check(name: str, leaf: jax.Array, axis_names: str | Sequence[str]) -> None:
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    raise ValueError(
      f"gradient {name} must have a floating-point dtype, got {leaf.dtype}"
    )
  require_varying(
    f"gradient {name}",
    leaf,
    axis_names,
    cure="differentiate with respect to device_varying(parameters)",
  )


def _wide(dtype: jnp.dtype) -> jnp.dtype:
  return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)
