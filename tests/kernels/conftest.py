"""Running the TPU kernels where there is no TPU."""

from functools import partial

import pytest
from jax.experimental import pallas as pl


@pytest.fixture
def interpret(monkeypatch):
  """A function after whose call Pallas kernels run as plain JAX."""

  def begin():
    run = partial(pl.pallas_call, interpret=True)
    monkeypatch.setattr(pl, "pallas_call", run)

  return begin
