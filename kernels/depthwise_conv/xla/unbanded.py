"""A form of the convolution for images as they are, for those in bands."""

from typing import Any, NamedTuple

from ...common.bands import from_bands, to_bands
from ..settings import Call, Gradients, Residuals, Results


class Unbanded(NamedTuple):
  """Puts the bands together before the form, and cuts its results again.

  Attributes:
    form: A module with `forward` and `backward`.
  """

  form: Any

  def forward(self, x, filters, scale, offset, call: Call) -> Results:
    """See `podscale.kernels.depthwise_conv_bn`."""
    bands = call.settings.bands
    if bands == 1:
      return self.form.forward(x, filters, scale, offset, call)
    x = from_bands(x, bands)
    y, moments = self.form.forward(x, filters, scale, offset, call)
    return to_bands(y, bands), moments

  def backward(
    self, residuals: Residuals, cotangents: Results, call: Call
  ) -> Gradients:
    """The gradients of x, filters, scale and offset, in their dtypes."""
    bands = call.settings.bands
    if bands == 1:
      return self.form.backward(residuals, cotangents, call)
    x, filters, scale, offset, y, moments = residuals
    dy, dmoments = cotangents
    x, y, dy = (from_bands(array, bands) for array in (x, y, dy))
    residuals = x, filters, scale, offset, y, moments
    dx, *rest = self.form.backward(residuals, (dy, dmoments), call)
    return to_bands(dx, bands), *rest
