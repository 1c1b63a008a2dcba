"""Error text for a step that is not finite."""

import jax
import numpy as np
import pytest

from podscale.train.non_finite import (
  _largest,
  _not_finite,
  describe_non_finite,
)


def metrics(loss, *norms):
  norms = np.float32(norms)
  return {
    "loss": np.float32(loss),
    "learning_rate": np.float32(0.5),
    "gradient_norm": np.linalg.norm(norms),
    "leaf_gradient_norms": norms,
  }


def test_the_first_step_that_is_not_finite_is_described():
  paths = [path for path, _ in jax.tree.leaves_with_path({"a": 0, "b": 0})]
  steps = [metrics(1, 3, 4), metrics(2, np.inf, 4), metrics(np.nan, 3, 4)]
  assert describe_non_finite(steps[:1], 7, paths) == ""
  assert describe_non_finite(steps, 7, paths) == (
    "step 8 is not finite (loss 2, gradient norm inf, learning rate 0.5, "
    "not finite in a, largest norms b 4)"
  )
  assert describe_non_finite(steps[2:], 9, paths) == (
    "step 9 is not finite (loss nan, gradient norm 5, learning rate 0.5, "
    "largest norms b 4, a 3)"
  )


@pytest.mark.parametrize(
  ("bad", "said"),
  [
    ([], ""),
    ([1], ", not finite in stem.kernel"),
    ([0, 1], ", in every tensor"),
  ],
)
def test_whose_gradient_is_not_finite(bad, said):
  tree = {"head": {"bias": 0}, "stem": {"kernel": 0}}
  paths = [path for path, _ in jax.tree.leaves_with_path(tree)]
  norms = np.ones(2, np.float32)
  norms[bad] = np.nan
  assert _not_finite(norms, paths) == said


def test_the_largest_norms_are_named():
  tree = {"a": 0, "b": 0, "c": 0, "d": 0, "e": 0}
  paths = [path for path, _ in jax.tree.leaves_with_path(tree)]
  norms = np.float32([1.0, np.nan, 1e30, 2.5, np.inf])
  assert _largest(norms, paths) == ", largest norms c 1e+30, d 2.5, a 1"
  assert _largest(np.float32([np.nan] * 5), paths) == ""


def test_many_names_are_cut_short():
  paths = [path for path, _ in jax.tree.leaves_with_path(list(range(8)))]
  norms = np.where(np.arange(8) < 7, np.inf, 1)
  assert _not_finite(norms, paths) == ", not finite in 0, 1, 2, 3, 4 and 2 more"
