"""Barrier that makes XLA recompute activations in the backward pass."""

from typing import Any

from jax import lax


def recompute_from[Tree](residuals: Tree, cotangents: Any) -> tuple[Tree, Any]:
  """Return residuals and cotangents, but only once the cotangents are there.

  Without the barrier XLA would share the activations that the backward pass
  recomputes with the forward pass, and keep them in memory in between.
  """
  return lax.optimization_barrier((residuals, cotangents))
