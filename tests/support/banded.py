"""Ops on images in bands, called with whole images."""

from podscale.kernels import from_bands, to_bands


def in_bands(op, bands):
  """Wrap an op from x and others to y and moments to run on bands of x."""

  def run(x, *others):
    y, moments = op(to_bands(x, bands), *others, bands=bands)
    return from_bands(y, bands), moments

  return run
