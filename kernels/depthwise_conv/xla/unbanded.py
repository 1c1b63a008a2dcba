"""Bands for implementations that know only whole images."""

from types import ModuleType
from typing import NamedTuple

from ...common.bands import from_bands, to_bands
from ..settings import Call, Gradients, Residuals, Results


class Unbanded(NamedTuple):
  """An implementation that joins the bands first and splits its results again.

  Attributes:
    implementation: Module with `forward` and `backward` for whole images.
  """

  implementation: ModuleType

  def forward(self, x, filters, scale, offset, call: Call) -> Results:
    """See `podscale.kernels.depthwise_conv_bn`."""
    bands, run = call.settings.bands, self.implementation.forward
    if bands == 1:
      return run(x, filters, scale, offset, call)
    x = from_bands(x, bands)
    y, moments = run(x, filters, scale, offset, call)
    return to_bands(y, bands), moments

  def backward(
    self, residuals: Residuals, cotangents: Results, call: Call
  ) -> Gradients:
    """Compute the gradients of x, filters, scale and offset."""
    bands, run = call.settings.bands, self.implementation.backward
    if bands == 1:
      return run(residuals, cotangents, call)
    x, filters, scale, offset, y, moments = residuals
    dy, dmoments = cotangents
    x, dy = from_bands(x, bands), from_bands(dy, bands)
    y = None if y is None else from_bands(y, bands)
    residuals = x, filters, scale, offset, y, moments
    dx, *parameter_gradients = run(residuals, (dy, dmoments), call)
    return to_bands(dx, bands), *parameter_gradients
