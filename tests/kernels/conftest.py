"""Running the TPU kernels where there is no TPU."""

import contextlib
from functools import partial

import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from podscale.kernels.tpu import pixels


@pytest.fixture
def interpret(monkeypatch):
  """A function after whose call Pallas kernels run as plain JAX."""

  def begin():
    run = partial(pl.pallas_call, interpret=True)
    monkeypatch.setattr(pl, "pallas_call", run)

  return begin


@pytest.fixture
def interpret_tpu():
  """A function after whose call kernels run in Pallas' TPU interpreter.

  Slower than `interpret`, but it works inside `shard_map` with `check_vma`: the
  other interpreter evaluates a kernel's operations on arrays that vary over the
  mesh and on indices that do not, which `check_vma` refuses.
  """
  with contextlib.ExitStack() as stack:

    def begin():
      mode = pltpu.InterpretParams()
      stack.enter_context(pltpu.force_tpu_interpret_mode(mode))

    yield begin


@pytest.fixture
def few_pixels(monkeypatch):
  """So little of VMEM that a kernel takes several steps."""
  monkeypatch.setattr(pixels, "_MOST_BYTES", 150_000)
