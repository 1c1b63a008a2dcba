"""Ops on images in bands, as if they were on the images."""

from podscale.kernels import from_bands, to_bands


def in_bands(op, bands):
  """Of an op from x and others to y and moments."""

  def run(x, *others):
    y, moments = op(to_bands(x, bands), *others, bands=bands)
    return from_bands(y, bands), moments

  return run
