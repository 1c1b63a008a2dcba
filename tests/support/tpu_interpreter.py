"""Slow interpretation of Pallas kernels as on a TPU."""

import contextlib

from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu


@contextlib.contextmanager
def as_on_a_tpu():
  """Interpret kernels with NaN in unwritten memory and a race detector."""
  mode = pltpu.InterpretParams(
    detect_races=True, uninitialized_memory="nan", buffer_bounds="logical"
  )
  with pltpu.force_tpu_interpret_mode(mode):
    yield
  assert not interpret_pallas_call.races.races_found
