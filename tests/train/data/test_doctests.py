"""The examples in the docstrings."""

import doctest
import importlib

import pytest

MODULES = [
  "augment",
  "batches",
  "fashion_mnist",
  "randomness",
  "registry",
  "source",
  "synthetic",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
  module = importlib.import_module(f"podscale.train.data.{name}")
  result = doctest.testmod(module)
  assert result.attempted > 0
  assert result.failed == 0
