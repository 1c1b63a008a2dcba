"""Running the TPU kernels where there is no TPU."""

from functools import partial

import pytest
from jax.experimental import pallas as pl

from podscale.kernels.tpu import pixels


@pytest.fixture
def interpret(monkeypatch):
  """A function after whose call Pallas kernels run as plain JAX."""

  def begin():
    run = partial(pl.pallas_call, interpret=True)
    monkeypatch.setattr(pl, "pallas_call", run)

  return begin


@pytest.fixture
def few_pixels(monkeypatch):
  """So little of VMEM that a kernel takes several steps."""
  monkeypatch.setattr(pixels, "_MOST_BYTES", 150_000)
