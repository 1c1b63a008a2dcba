"""What the tests of collectives share: a look at a program's all-reduces."""

import re

import jax
import pytest


@pytest.fixture
def all_reduces():
  """Counts the all-reduce instructions of a function's compiled program."""

  def count(function, *args):
    text = jax.jit(function).lower(*args).compile().as_text()
    return len(re.findall(r" all-reduce(?:-start)?\(", text))

  return count


@pytest.fixture
def lowered_all_reduces():
  """The operand type of each all-reduce before XLA merges and widens any."""

  def types(function, *args):
    text = jax.jit(function).lower(*args).as_text()
    types = re.findall(
      r'"stablehlo.all_reduce".*?\}\) : \(tensor<(\S+)>\)', text, re.DOTALL
    )
    assert len(types) == text.count("stablehlo.all_reduce")
    return types

  return types
