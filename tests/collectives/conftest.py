"""Fixtures that count and list the collectives of a program."""

import re

import jax
import pytest


@pytest.fixture
def all_reduces():
  """Count the all-reduce instructions of a function's compiled program."""

  def count(function, *args):
    text = jax.jit(function).lower(*args).compile().as_text()
    return len(re.findall(r" all-reduce(?:-start)?\(", text))

  return count


@pytest.fixture
def lowered_collectives():
  """List kind and operand type of collectives before XLA optimises them."""

  def types(function, *args):
    text = jax.jit(function).lower(*args).as_text()
    found = re.findall(
      r'"stablehlo\.(all_reduce|all_gather|reduce_scatter)".*?'
      r": \(tensor<(\S+)>\) ->",
      text,
      re.DOTALL,
    )
    names = re.findall(r'"stablehlo\.(all_|reduce_scatter|collective_)', text)
    assert len(found) == len(names)
    return found

  return types
