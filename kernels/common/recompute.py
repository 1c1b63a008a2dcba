"""Keeping what a backward pass computes again out of memory until then."""

from typing import Any

from jax import lax


def recompute_from[Tree](residuals: Tree, cotangents: Any) -> tuple[Tree, Any]:
  """Both as they are, but not before the cotangents are there.

  Without the barrier XLA would find in the backward pass the activations of
  the forward pass again, and keep them until now instead of the residuals.
  """
  return lax.optimization_barrier((residuals, cotangents))
